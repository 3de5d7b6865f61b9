//go:build unix

package sockets

import (
	"os"
	"syscall"
)

// at calls do with the descriptor of the directory.
func (f *file) at(do func(dir int) error) error {
	dir, err := descriptor(f.dir)
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
	fd, err := descriptor(f)
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

// descriptor returns the number of a file's descriptor, which stays in its mode; Fd could make it blocking.
func descriptor(f *os.File) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = rc.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}
