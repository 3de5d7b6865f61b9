//go:build unix

package sockets

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// copyDescriptor returns a copy of a descriptor of this process.
func copyDescriptor(fd int, name string) (*os.File, error) {
	n, err := dup(fd)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), name), nil
}

func closeDescriptor(fd int) { syscall.Close(fd) }

// isServable reports why a descriptor is not a socket that connections come to.
func isServable(f *os.File) error {
	fd, err := descriptor(f)
	if err != nil {
		return err
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	switch {
	case errors.Is(err, unix.ENOTSOCK):
		return errors.New("it is no socket")
	case err != nil:
		return os.NewSyscallError("getsockopt", err)
	case kind == unix.SOCK_DGRAM:
		return errors.New("it is for datagrams: a pack serves ListenStream=")
	case kind != unix.SOCK_STREAM:
		return fmt.Errorf("it is of type %d: a pack serves ListenStream=", kind)
	}
	if accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || accepts == 0 {
		return errors.New("it does not listen: the unit wants Accept=no")
	}
	return nil
}

func isV6Only(f *os.File) bool {
	rc, err := f.SyscallConn()
	return err == nil && isV6OnlyConn(rc)
}

func isV6OnlyConn(c syscall.RawConn) (is bool) {
	c.Control(func(fd uintptr) {
		v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		is = err == nil && v != 0
	})
	return is
}
