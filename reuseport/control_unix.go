//go:build unix && !solaris && !illumos

package reuseport

import (
	"os"
	"runtime"
	"syscall"

	libp2p "github.com/libp2p/go-reuseport"
	"golang.org/x/sys/unix"
)

// shareTCP sets what go-reuseport does. Its Listen and Dial are not for us: they take no context, and make listeners
// of Multipath TCP.
func shareTCP(network, address string, c syscall.RawConn) error {
	return os.NewSyscallError("setsockopt SO_REUSEADDR, SO_REUSEPORT", libp2p.Control(network, address, c))
}

// shareTCPDialer is shareTCP for a socket that never listens.
func shareTCPDialer(network, address string, c syscall.RawConn) error {
	if runtime.GOOS != "freebsd" {
		return shareTCP(network, address, c)
	}
	// go-reuseport sets SO_REUSEPORT_LB, too, by which FreeBSD counts a socket among the listeners of its address from
	// the bind on (in_pcbinshash), and sends it some of their connections.
	return onSocket(c, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_REUSEADDR", err)
		}
		return setReusePort(fd, 1)
	})
}

func setReusePort(fd int, value int) error {
	return os.NewSyscallError("setsockopt SO_REUSEPORT",
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, value))
}
