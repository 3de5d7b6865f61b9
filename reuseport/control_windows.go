package reuseport

import (
	"errors"
	"os"
	"syscall"

	libp2p "github.com/libp2p/go-reuseport"
)

func shareTCP(network, address string, c syscall.RawConn) error {
	return os.NewSyscallError("setsockopt SO_REUSEADDR", libp2p.Control(network, address, c))
}

func shareTCPDialer(network, address string, c syscall.RawConn) error {
	return shareTCP(network, address, c)
}

func setReusePort(int, int) error { return errors.ErrUnsupported }
