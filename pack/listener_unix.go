//go:build unix

package pack

import (
	"io/fs"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// readable reports whether a connection waits in the queue of a listener.
func readable(l net.Listener) bool {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	queued := false
	rc.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		queued = err == nil && n == 1
	})
	return queued
}

// setMode sets the mode with which the file of a Unix socket will be made.
func setMode(fd int, mode fs.FileMode) { unix.Fchmod(fd, uint32(mode.Perm())) }
