//go:build unix

package master

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkConn reports why a descriptor is not a connection that one worker could hand over to another.
func checkConn(f *os.File) error {
	err := fmt.Errorf("what was handed over is no connection")
	onDescriptor(f, func(fd int) {
		kind, kerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		listens, lerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		name, nerr := unix.Getsockname(fd)
		if kerr != nil || lerr != nil || nerr != nil || kind != unix.SOCK_STREAM || listens != 0 {
			return
		}
		switch name.(type) {
		case *unix.SockaddrInet4, *unix.SockaddrInet6, *unix.SockaddrUnix:
			err = nil
		}
	})
	return err
}

func onDescriptor(f *os.File, do func(fd int)) {
	if rc, err := f.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) { do(int(fd)) })
	}
}

// duplicate returns a copy of a file, which is close-on-exec and in the mode that the file is in.
func duplicate(f *os.File) (*os.File, error) {
	n, err := -1, error(os.ErrClosed)
	onDescriptor(f, func(fd int) { n, err = dup(fd) })
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD", err)
	}
	return os.NewFile(uintptr(n), f.Name()), nil
}
