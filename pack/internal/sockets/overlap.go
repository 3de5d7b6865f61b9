package sockets

import (
	"errors"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// ours is the sockets of this process that are in the way of others.
type ours struct {
	endpoints []wire.Endpoint
	addresses []string // of each, with its network
	equal     bool     // the first of them listens on just what is wanted
	mixed     bool     // some of them the kernel would have in one group with what is wanted
}

// inTheWay finds the sockets of this process because of which an address was in use.
func (k *Keeper) inTheWay(e wire.Endpoint, err error) (o ours) {
	op, _ := errors.AsType[*net.OpError](err)
	taken, _ := errors.AsType[*takenError](err)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, other := range k.endpoints() {
		s := k.open[other]
		equal, overlap, mixed := s.compare(other, e, op)
		if taken != nil && s.file != nil && s.file.id == taken.id {
			equal, overlap = true, true
		}
		if !overlap {
			continue
		}
		at := 0 // what is equal comes first
		if !equal {
			at = len(o.endpoints)
		}
		o.endpoints = slices.Insert(o.endpoints, at, other)
		o.addresses = slices.Insert(o.addresses, at, other.Network+" "+s.address())
		o.equal, o.mixed = o.equal || equal, o.mixed || mixed
	}
	return o
}

// same reports whether the sockets are those that are wanted, and can be had.
func (o *ours) same(leaving []wire.Endpoint) bool {
	return o.equal && slices.Contains(leaving, o.endpoints[0])
}

// refusal says why no sockets can be opened beside these; "" if they can.
func (o *ours) refusal(leaving []wire.Endpoint) string {
	for i, e := range o.endpoints {
		switch {
		case !slices.Contains(leaving, e):
			return "this pack listens on " + o.addresses[i] + " already"
		case o.mixed || runtime.GOOS != "linux":
			return "this pack listens on " + o.addresses[i] + " until its old workers have drained, and the kernel " +
				"cannot keep the two apart: change the port, too, or stop the pack and start it anew"
		}
	}
	return ""
}

// compare reports whether the sockets, of endpoint e, listen on just what an error of a bind was about, for endpoint
// wanted, and whether they listen on some of it.
func (s *set) compare(e, wanted wire.Endpoint, op *net.OpError) (equal, overlap, mixed bool) {
	if op == nil {
		return false, false, false
	}
	if b, ok := op.Addr.(*net.UnixAddr); ok {
		a, ok := s.listeners[0].Addr().(*net.UnixAddr)
		equal = ok && s.file == nil && abstractName(a.Name) == abstractName(b.Name)
		return equal, equal, false
	}
	b := inetAddr(op.Addr)
	for i, l := range s.listeners {
		a := inetAddr(l.Addr())
		if a == nil || b == nil || a.Port != b.Port || l.Addr().Network() != op.Addr.Network() {
			continue
		}
		x, y := scopeOf(e.Network, a), scopeOf(op.Net, b)
		equal = x == y && e.Own == wanted.Own && i == 0
		apart := !e.Own && !wanted.Own && (x == y || x.ip != y.ip || !x.wide() || !y.wide())
		return equal, x.covers(y) || y.covers(x), !apart
	}
	return false, false, false
}

// abstractName returns the name of a Unix socket without a file, however it is written.
func abstractName(name string) string {
	if name != "" && name[0] == 0 {
		return "@" + name[1:]
	}
	return name
}

// inetAddr returns an address of TCP or UDP, as one of TCP; nil of others.
func inetAddr(a net.Addr) *net.TCPAddr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a
	case *net.UDPAddr:
		return &net.TCPAddr{IP: a.IP, Port: a.Port, Zone: a.Zone}
	}
	return nil
}

// scope is what comes to a socket of TCP or UDP, but for the port.
type scope struct {
	network string // "" where it says nothing more
	ip      string // with the number of its zone
	v4      bool
}

func scopeOf(network string, a *net.TCPAddr) scope {
	ip, version := a.IP, strings.TrimLeft(network, "tcudp")
	if len(ip) == 0 {
		ip = net.IPv6zero
		if version == "4" {
			ip = net.IPv4zero
		}
	}
	if !ip.IsUnspecified() {
		return scope{"", ip.String() + "%" + zoneOf(a), ip.To4() != nil}
	}
	if version == "" { // package net has it mean both
		ip = net.IPv6zero
	}
	return scope{network, ip.String(), ip.To4() != nil}
}

// zoneOf returns the zone of an address by its number, and "" where the kernel ignores it: it has a meaning only for
// addresses of a link.
func zoneOf(a *net.TCPAddr) string {
	if a.Zone == "" || !a.IP.IsLinkLocalUnicast() && !a.IP.IsLinkLocalMulticast() {
		return ""
	}
	if i, err := net.InterfaceByName(a.Zone); err == nil {
		return strconv.Itoa(i.Index)
	}
	return a.Zone // a number, or an interface that is gone
}

// wide reports whether the address is a wildcard.
func (s scope) wide() bool { return s.network != "" }

// covers reports whether who listens there also gets what comes to another.
func (s scope) covers(other scope) bool {
	switch {
	case s == other:
		return true
	case !s.wide():
		return false
	}
	return s.v4 == other.v4 || s.network == "tcp" || s.network == "udp"
}
