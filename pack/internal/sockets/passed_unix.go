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

// isServable reports whether a descriptor is a packet socket, or why it is neither that nor one to which connections
// come.
func isServable(f *os.File) (packets bool, err error) {
	fd, err := descriptor(f)
	if err != nil {
		return false, err
	}
	family := unix.AF_UNSPEC
	if name, err := unix.Getsockname(fd); err == nil {
		switch name.(type) {
		case *unix.SockaddrInet4, *unix.SockaddrInet6:
			family = unix.AF_INET
		}
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	switch {
	case errors.Is(err, unix.ENOTSOCK):
		return false, errors.New("it is no socket")
	case err != nil:
		return false, os.NewSyscallError("getsockopt", err)
	case kind == unix.SOCK_DGRAM && family == unix.AF_INET:
		return true, nil
	case kind == unix.SOCK_DGRAM:
		return false, errors.New("it is for datagrams, and not of UDP: a pack serves ListenStream=, or ListenDatagram= of a port")
	case kind != unix.SOCK_STREAM:
		return false, fmt.Errorf("it is of type %d: a pack serves ListenStream=, or ListenDatagram= of a port", kind)
	}
	if accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || accepts == 0 {
		return false, errors.New("it does not listen: the unit wants Accept=no")
	}
	return false, nil
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
