package worker

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// waiting reports whether a connection waits in the queue of a listener. Of one that was shut down, so that it refuses
// new connections and what is queued can be accepted (a Unix socket without a file), poll(2) does not tell: there it
// accepts a connection, if there is one.
func waiting(l net.Listener) (c net.Conn, waits bool) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return nil, false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil, false
	}
	rc.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
		if _, err := unix.Poll(fds, 0); err != nil || fds[0].Revents&unix.POLLRDHUP == 0 {
			waits = err == nil && fds[0].Revents != 0
			return
		}
		accepted, _, err := unix.Accept4(int(fd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		f := os.NewFile(uintptr(accepted), "accepted")
		defer f.Close()
		c, _ = net.FileConn(f) // a copy
	})
	return c, waits
}
