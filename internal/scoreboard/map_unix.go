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
	if n < 1 || n > maxSlots {
		return nil, fmt.Errorf("map the board: %d slots: there must be 1 to %d", n, maxSlots)
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var memory []byte
	cerr := rc.Control(func(fd uintptr) {
		if err = longEnough(int(fd), int64(n*SlotSize)); err == nil {
			memory, err = unix.Mmap(int(fd), 0, n*SlotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			err = os.NewSyscallError("mmap", err)
		}
	})
	if cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, fmt.Errorf("map the board: %w", err)
	}
	b := &Board{memory}
	runtime.AddCleanup(b, func(memory []byte) { unix.Munmap(memory) }, memory)
	return b, nil
}

// longEnough reports a file of which there is too little: to store beyond its end would end the process (SIGBUS). Of
// what is no regular file, such as a map of the kernel's, mmap itself says so.
func longEnough(fd int, size int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if uint32(st.Mode)&unix.S_IFMT == unix.S_IFREG && int64(st.Size) < size {
		return fmt.Errorf("the file has %d bytes, not %d", st.Size, size)
	}
	return nil
}
