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
	if fd, err = dup(fd); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// dup returns a copy of a descriptor, which is close-on-exec.
func dup(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, err := syscall.Dup(fd)
	if err != nil {
		return -1, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(n)
	return n, nil
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
