package upgrade

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
)

// sameAddress returns a function that tells whether an inherited socket, of the same kind, listens where a name says,
// although the predecessor has written that in another way. It returns nil if none can.
func sameAddress(ctx context.Context, u *Upgrader, n name) func(name, *item) bool {
	if !u.hasOthers(n) {
		return nil
	}
	if path, err := socketPath(n); err == nil && path != "" {
		return func(other name, i *item) bool { return other.Network == n.Network && i.path == path }
	}
	wanted, ok := resolve(ctx, n)
	if !ok {
		return nil
	}
	return func(other name, i *item) bool {
		bound, ok := boundTo(n.Kind, i.file)
		if wanted.Addr().IsUnspecified() { // of which protocol, only the network tells
			return ok && other.Network == n.Network && bound.Addr().IsUnspecified() && bound.Port() == wanted.Port()
		}
		return ok && bound == wanted
	}
}

// resolve returns the address on which package net would listen.
func resolve(ctx context.Context, n name) (a netip.AddrPort, ok bool) {
	version, isTCP := strings.CutPrefix(n.Network, "tcp")
	version, isUDP := strings.CutPrefix(version, "udp")
	host, service, err := net.SplitHostPort(n.Address)
	if err != nil || !isTCP && !isUDP {
		return a, false
	}
	port, err := net.DefaultResolver.LookupPort(ctx, n.Network, service)
	if err != nil || port == 0 {
		return a, false
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(port)), true
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip"+version, host)
	if err != nil || len(all) == 0 {
		return a, false
	}
	first := all[0].Unmap()
	for _, ip := range all {
		if ip = ip.Unmap(); ip.Is4() {
			first = ip
			break
		}
	}
	return netip.AddrPortFrom(first, uint16(port)), true
}

// boundTo returns the address of a TCP or UDP socket.
func boundTo(kind string, f *os.File) (a netip.AddrPort, ok bool) {
	var address net.Addr
	if kind == "packet" {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return a, false
		}
		defer c.Close()
		address = c.LocalAddr()
	} else {
		l, err := net.FileListener(f)
		if err != nil {
			return a, false
		}
		defer l.Close()
		address = l.Addr()
	}
	has, ok := address.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return a, false
	}
	a = has.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), true
}
