package reuseport

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
)

// Control sets SO_REUSEPORT on a socket before it is bound. It fits [net.ListenConfig.Control] and
// [net.Dialer.Control], but see [ListenConfig] and [Dial], which avoid what can go wrong with them: a net.ListenConfig
// opens Multipath TCP listeners, which take no program (see [AttachCPU]), and a UDP socket that shares port 0 may get a
// port that another one of this user has.
//
// For TCP it also sets SO_REUSEADDR, without which a dialer gets no port on which connections of a server have ended
// lately, and, on FreeBSD, SO_REUSEPORT_LB, which spreads connections over listeners. On Windows it is SO_REUSEADDR
// alone, for TCP: with that any program may take the port of a listener, and which of them gets a connection is not
// defined, so it is for dialers. Where the operating system has no such option the error matches
// [errors.ErrUnsupported].
func Control(network, address string, c syscall.RawConn) error {
	if strings.HasPrefix(network, "tcp") {
		return shareTCP(network, address, c)
	}
	return onSocket(c, share)
}

// listenerControl is Control for a listener of ours.
func listenerControl(network, address string, c syscall.RawConn) error {
	if runtime.GOOS == "windows" {
		return fmt.Errorf("listeners cannot share a port safely on Windows: %w", errors.ErrUnsupported)
	}
	return Control(network, address, c)
}

// share sets SO_REUSEPORT and nothing else. It is for UDP, where SO_REUSEADDR would let a socket of any user take the
// address, and all that comes to it, and for groups, which are Linux's and get SO_REUSEADDR from package net.
func share(fd int) error { return setReusePort(fd, 1) }
