//go:build !plan9

package sockets

import (
	"net"
	"syscall"
)

const (
	errInUse       = syscall.EADDRINUSE
	errRefused     = syscall.ECONNREFUSED
	errUnavailable = syscall.EADDRNOTAVAIL
)

// keepFile has the file of a Unix socket stay when this copy of the socket is closed.
func keepFile(l *net.UnixListener) { l.SetUnlinkOnClose(false) }
