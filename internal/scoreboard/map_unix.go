//go:build unix

package scoreboard

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Map maps a board of n slots from the file that f is. It keeps no copy of f.
func Map(f *os.File, n int) (*Board, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var memory []byte
	cerr := rc.Control(func(fd uintptr) {
		memory, err = unix.Mmap(int(fd), 0, n*SlotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	})
	if cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, fmt.Errorf("map the board: %w", os.NewSyscallError("mmap", err))
	}
	b := &Board{memory}
	runtime.AddCleanup(b, func(memory []byte) { unix.Munmap(memory) }, memory)
	return b, nil
}
