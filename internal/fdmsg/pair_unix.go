//go:build unix

package fdmsg

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pair returns the two ends of a Unix stream socket, both close-on-exec: one for this process, and one as a file that a
// child, or a successor, inherits. name is for errors.
func Pair(name string) (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // no fork between the making and the closing on exec; not every system has SOCK_CLOEXEC
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	switch err {
	case nil:
	case unix.EAFNOSUPPORT, unix.EPERM, unix.EACCES:
		return nil, nil, fmt.Errorf("%w (processes talk over Unix sockets: RestrictAddressFamilies= of systemd, "+
			"or a filter of system calls, must allow AF_UNIX)", os.NewSyscallError("socketpair", err))
	default:
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	mine := os.NewFile(uintptr(fds[0]), name)
	defer mine.Close()
	theirs = os.NewFile(uintptr(fds[1]), name)
	if ours, err = Conn(mine); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// Conn makes a connection of a copy of a file, which must be a Unix socket.
func Conn(f *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, &os.PathError{Op: "inherit", Path: f.Name(), Err: unix.ENOTSOCK}
	}
	return uc, nil
}
