//go:build unix

package sockets

import (
	"os"
	"syscall"

	"github.com/gopherpack/gopherpack/internal/inplace"
)

// at calls do with the descriptor of the directory.
func (f *file) at(do func(dir int) error) error {
	dir, err := inplace.Descriptor(f.dir)
	if err != nil {
		return err
	}
	return do(dir)
}

// duplicate returns a copy of a descriptor; nil of none.
func duplicate(f *os.File) (*os.File, error) {
	if f == nil {
		return nil, nil
	}
	fd, err := inplace.Descriptor(f)
	if err != nil {
		return nil, err
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if fd, err = syscall.Dup(fd); err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}
