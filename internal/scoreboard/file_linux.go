package scoreboard

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// New returns a file in memory with one slot, which nobody can make shorter (memfd_create(2)): to load from beyond its
// end would end the process. The caller closes the file; the slot is of use for as long as it is referred to.
func New() (*os.File, *Slot, error) {
	fd, err := unix.MemfdCreate("gopherpack-tally", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, fmt.Errorf("make a scoreboard: %w", os.NewSyscallError("memfd_create", err))
	}
	f := os.NewFile(uintptr(fd), "gopherpack-tally")
	s, err := prepare(f, fd)
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("make a scoreboard: %w", err)
	}
	return f, s, nil
}

func prepare(f *os.File, fd int) (*Slot, error) {
	if err := unix.Ftruncate(fd, SlotSize); err != nil {
		return nil, os.NewSyscallError("ftruncate", err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	b, err := Map(f, 1)
	if err != nil {
		return nil, err
	}
	return b.Slot(0)
}
