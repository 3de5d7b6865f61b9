package drain

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// wasKept reports whether the kernel has sent its part of the handshake twice, as it does after a second of silence
// where it defers connections (TCP_DEFER_ACCEPT, tcp(7)). That counts as what the connection has sent again.
func wasKept(c syscall.Conn) (was bool) {
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	rc.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		was = err == nil && info.Total_retrans > 0
	})
	return was
}
