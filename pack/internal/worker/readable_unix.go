//go:build unix

package worker

import (
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
