package reuseport

import (
	"context"
	"fmt"
	"net"
	"syscall"
)

// Dial connects to address from local, an IP address and port that other sockets of this user may have, too, if they
// have SO_REUSEPORT: listeners, packet sockets, and connections to other addresses. It is for programs that are to be
// seen at one address by all their peers, as for hole punching. network is tcp, tcp4, tcp6, udp, udp4 or udp6; both
// addresses are as for [net.Dial], so local may be ":8080", or what a listener's Addr says. "" is any address and a
// port that the kernel chooses. A name in local is resolved whatever becomes of ctx.
//
// There can be only one TCP connection from one address to another: a second one is EADDRNOTAVAIL. A UDP socket gets
// what its peer sends, and nothing else: what comes to it in the moment before it is connected, as a member of the
// group of its address, is dropped. It may keep that place afterwards, which is the last one: see [AttachCPU].
//
// On Windows it is for TCP only. Where the operating system has no such option the error matches
// [errors.ErrUnsupported].
func Dial(ctx context.Context, network, local, address string) (net.Conn, error) {
	var d net.Dialer
	var err error
	connected := func(int) error { return nil }
	switch network {
	case "tcp", "tcp4", "tcp6":
		d.Control = shareTCPDialer
		d.LocalAddr, err = net.ResolveTCPAddr(network, local)
	case "udp", "udp4", "udp6":
		bind := shareDeaf
		if connected = hear; choosesPort(local) {
			bind, connected = found, openToOthers
		}
		d.Control = func(_, _ string, c syscall.RawConn) error { return onSocket(c, bind) }
		d.LocalAddr, err = net.ResolveUDPAddr(network, local)
	default:
		err = fmt.Errorf("want tcp, tcp4, tcp6, udp, udp4 or udp6: %w", net.UnknownNetworkError(network))
	}
	if err != nil {
		return nil, fmt.Errorf("reuseport: dial %s from %s to %s: %w", network, local, address, err)
	}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("reuseport: %w", err)
	}
	if err := onConn(c, connected); err != nil {
		c.Close()
		return nil, fmt.Errorf("reuseport: dial %s from %s to %s: %w", network, local, address, err)
	}
	return c, nil
}

// shareDeaf is share for a UDP socket that is not connected yet: what comes to it until then was sent to another, and
// would be taken for what its peer has sent.
func shareDeaf(fd int) error {
	if err := share(fd); err != nil {
		return err
	}
	return deafen(fd)
}
