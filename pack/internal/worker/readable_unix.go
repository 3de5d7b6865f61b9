//go:build unix

package worker

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// readable reports whether a connection waits in the queue of a listener, or a datagram in that of a packet socket.
func readable(socket any) bool {
	sc, ok := socket.(syscall.Conn)
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
