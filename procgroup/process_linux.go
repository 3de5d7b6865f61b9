package procgroup

import (
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watches says that watch returns before the process is reaped.
const watches = true

// hangUp has a connection end after what has arrived: a Unix socket that is shut down for reading still gives that.
func hangUp(c *net.UnixConn) { c.CloseRead() }

// watch opens a pidfd of a child and returns a function that waits, in the network poller, until the child has
// ended or stop is called. Without such a pidfd (seccomp, or Linux before 5.10) it waits in waitid(2), which takes a
// thread, and does not mind stop.
func watch(pid int) (exited, stop func()) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err == nil {
		if f := os.NewFile(uintptr(fd), "pidfd"); f != nil {
			if rc, err := f.SyscallConn(); err == nil {
				var stopped atomic.Bool
				return func() {
						defer f.Close()
						if rc.Read(readable) != nil && !stopped.Load() {
							waitid(pid)
						}
					}, func() {
						stopped.Store(true)
						f.SetReadDeadline(time.Unix(1, 0))
					}
			}
			f.Close()
		}
	}
	return func() { waitid(pid) }, func() {}
}

// readable reports whether a descriptor can be read from; a pidfd can once its process has ended.
func readable(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n == 1
}

// waitid waits until a child has ended and leaves it to be reaped.
func waitid(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
