package reuseport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/net/bpf"
)

// Dial connects to address from local, an IP address and port that other sockets of this user may have, too, if they
// have SO_REUSEPORT: listeners, packet sockets, and connections to other addresses. It is for programs that are to be
// seen at one address by all their peers, as for hole punching. network is tcp, tcp4, tcp6, udp, udp4 or udp6; both
// addresses are as for [net.Dial], so local may be ":8080", or what a listener's Addr says. "" is any address and a
// port that the kernel chooses. A name in local is resolved whatever becomes of ctx.
//
// There can be only one TCP connection from one address to another: a second one is EADDRNOTAVAIL. A UDP socket gets
// what its peer sends, and nothing else: what comes to it in the moment before it is connected, as a member of the
// group of its address, is dropped, by a filter (on Linux, SO_ATTACH_FILTER in socket(7)) that it keeps. It may keep that
// place afterwards, which is the last one: see [AttachCPU].
//
// On Windows it is for TCP only. Where the operating system has no such option the error matches
// [errors.ErrUnsupported].
func Dial(ctx context.Context, network, local, address string) (c net.Conn, err error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		c, err = dialTCP(ctx, network, local, address)
	case "udp", "udp4", "udp6":
		c, err = dialUDP(ctx, network, local, address)
	default:
		err = fmt.Errorf("want tcp, tcp4, tcp6, udp, udp4 or udp6: %w", net.UnknownNetworkError(network))
	}
	if _, whole := errors.AsType[*net.OpError](err); err != nil && !whole {
		err = fmt.Errorf("dial %s from %s to %s: %w", network, local, address, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reuseport: %w", err)
	}
	return c, nil
}

func dialTCP(ctx context.Context, network, local, address string) (net.Conn, error) {
	from, err := net.ResolveTCPAddr(network, local)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{LocalAddr: from, Control: shareTCPDialer}
	return d.DialContext(ctx, network, address)
}

func dialUDP(ctx context.Context, network, local, address string) (net.Conn, error) {
	from, err := net.ResolveUDPAddr(network, local)
	if err != nil {
		return nil, err
	}
	bind, connected := shareDeaf, hear
	if from.Port == 0 {
		bind, connected = found, func(fd int, _ *net.UDPAddr) error { return openToOthers(fd) }
		if from.IP == nil || from.IP.IsUnspecified() {
			// With this address a socket would lose its group when it is connected, which gives it another one
			// (udp_lib_rehash). Whoever joined later would get what its peer sends (until Linux 6.13).
			if from, err = source(ctx, network, address); err != nil {
				return nil, err
			}
		}
	}
	d := net.Dialer{LocalAddr: from, Control: func(_, _ string, c syscall.RawConn) error { return onSocket(c, bind) }}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	peer := c.RemoteAddr().(*net.UDPAddr)
	if err := onConn(c, func(fd int) error { return connected(fd, peer) }); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// source returns the address from which the kernel sends to another, without a port.
func source(ctx context.Context, network, address string) (*net.UDPAddr, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	own := c.LocalAddr().(*net.UDPAddr)
	return &net.UDPAddr{IP: own.IP, Zone: own.Zone}, nil
}

// shareDeaf is share for a UDP socket that is not connected yet: what comes to it until then was sent to another, and
// would be taken for what its peer has sent.
func shareDeaf(fd int) error {
	if err := share(fd); err != nil {
		return err
	}
	return deafen(fd)
}

// ofPeer returns a filter for a UDP socket: what the peer sends. The kernel may have chosen the socket for a datagram
// before it was connected, and come to its filter afterwards, which must not let it pass just because the socket is
// connected now.
func ofPeer(peer *net.UDPAddr) ([]bpf.RawInstruction, error) {
	const sourcePort = 0 // in the header of UDP
	source, words := uint32(ipHeader+12), peer.IP.To4()
	version := uint32(0x40)
	if words == nil {
		source, words, version = ipHeader+8, peer.IP.To16(), 0x60
	}
	drop := bpf.RetConstant{Val: 0}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: sourcePort, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(peer.Port), SkipTrue: 1}, drop,
		bpf.LoadAbsolute{Off: ipHeader, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: version, SkipTrue: 1}, drop,
	}
	for i := 0; i < len(words); i += 4 {
		program = append(program,
			bpf.LoadAbsolute{Off: source + uint32(i), Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(words[i:]), SkipTrue: 1}, drop)
	}
	return bpf.Assemble(append(program, bpf.RetConstant{Val: ^uint32(0)}))
}
