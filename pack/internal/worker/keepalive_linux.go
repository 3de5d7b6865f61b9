package worker

import (
	"net"
	"reflect"
	"time"

	"golang.org/x/sys/unix"
)

// What package net sets for each connection that it accepts, by four system calls.
const (
	keepAliveTime  = 15 * time.Second
	keepAliveCount = 9
)

// inheritKeepAlive has connections inherit that from the socket instead, as all options (accept(2), tcp(7)): of the
// thirteen system calls that a connection with one request takes, four are for this. [net.FileListener] takes no
// [net.ListenConfig] that would ask package net not to, and the field that has it is not exported. Should there be none
// any more, all is as in package net.
func inheritKeepAlive(l *net.TCPListener) {
	config := reflect.ValueOf(l).Elem().FieldByName("lc")
	if !config.IsValid() || config.Type() != reflect.TypeFor[net.ListenConfig]() {
		return
	}
	rc, err := l.SyscallConn()
	if err != nil {
		return
	}
	isSet := false
	rc.Control(func(fd uintptr) { isSet = setKeepAlive(int(fd)) })
	if isSet {
		(*net.ListenConfig)(config.Addr().UnsafePointer()).KeepAlive = -1
	}
}

// setKeepAlive reports whether all of it is set, of a socket that is one of TCP: those of Multipath TCP are others. What
// was set before, by a Control of the user's or by another worker, stays.
func setKeepAlive(fd int) bool {
	const seconds = int(keepAliveTime / time.Second)
	if p, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP {
		return false
	}
	if is, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); err == nil && is != 0 {
		return true
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds) == nil &&
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds) == nil &&
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount) == nil &&
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1) == nil
}
