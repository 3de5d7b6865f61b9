// Package reuseport opens listeners and packet sockets that share one address by SO_REUSEPORT, one at a time
// or as a group of n, and tells the kernel by classic BPF which of them gets a connection.
//
// On Linux the sockets of one address form a group, and the kernel spreads new connections and datagrams over
// its members by a hash of the addresses, socket(7). Three things follow that are easy to get wrong:
//
//   - A member on which nobody accepts still gets its share, and those connections hang.
//   - Closing a member resets the connections that wait in its accept queue.
//   - Any process of the same user may join the group, and then gets a share too: a second instance of a
//     server, started by mistake, works, takes half of the traffic, and reports nothing. See [Config.Exclusive].
//
// All functions are safe for concurrent use. Whoever gets a listener or a packet connection closes it.
package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/net/bpf"
)

// Control sets SO_REUSEPORT on a socket before it is bound. It fits [net.ListenConfig.Control] and
// [net.Dialer.Control]. Where the operating system has no such option the error matches
// [errors.ErrUnsupported].
func Control(network, address string, c syscall.RawConn) error {
	return onSocket(c, share)
}

// Listen opens one TCP listener with SO_REUSEPORT. network is tcp, tcp4 or tcp6, address as for [net.Listen].
func Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return (&Config{}).listen(ctx, network, address, true)
}

// ListenPacket opens one UDP socket with SO_REUSEPORT. network is udp, udp4 or udp6, address as for
// [net.ListenPacket].
func ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return (&Config{}).listenPacket(ctx, network, address, true)
}

// ListenGroup opens n TCP listeners on one address; see [Config.ListenGroup].
func ListenGroup(ctx context.Context, network, address string, n int) ([]net.Listener, error) {
	return (&Config{}).ListenGroup(ctx, network, address, n)
}

// ListenPacketGroup opens n UDP sockets on one address; see [Config.ListenPacketGroup].
func ListenPacketGroup(ctx context.Context, network, address string, n int) ([]net.PacketConn, error) {
	return (&Config{}).ListenPacketGroup(ctx, network, address, n)
}

// Config has options for opening a group. The zero value is a good default.
type Config struct {
	// Exclusive refuses to join sockets that the call did not open itself: if anybody listens on the address
	// already, with SO_REUSEPORT or without, the error matches syscall.EADDRINUSE. Only what is there before
	// is refused; a process of the same user can still join afterwards.
	Exclusive bool

	// Control, if set, is called with each socket before it is bound, after this package's own options are
	// set, as [net.ListenConfig.Control] is. All members of a group should get the same options.
	Control func(network, address string, c syscall.RawConn) error
}

// ListenGroup opens n listeners on one address, in the order of their place in the kernel's group, or none at
// all. With port 0 the kernel chooses the port once, for all. They are [*net.TCPListener]s.
//
// Spreading over a group is Linux's; on other systems the error matches [errors.ErrUnsupported].
func (c *Config) ListenGroup(ctx context.Context, network, address string, n int) ([]net.Listener, error) {
	return group(c.Exclusive, network, address, n, func(address string, shared bool) (net.Listener, error) {
		return c.listen(ctx, network, address, shared)
	}, net.Listener.Addr)
}

// ListenPacketGroup opens n packet sockets on one address, in the order of their place in the kernel's group,
// or none at all. With port 0 the kernel chooses the port once, for all. They are [*net.UDPConn]s.
//
// Spreading over a group is Linux's; on other systems the error matches [errors.ErrUnsupported].
func (c *Config) ListenPacketGroup(ctx context.Context, network, address string, n int) ([]net.PacketConn, error) {
	return group(c.Exclusive, network, address, n, func(address string, shared bool) (net.PacketConn, error) {
		return c.listenPacket(ctx, network, address, shared)
	}, net.PacketConn.LocalAddr)
}

// group opens n sockets with open, whose flag says whether to share the address, or none.
//
// The first socket of an exclusive group is bound without SO_REUSEPORT, which fails if anything else is bound
// there, and gets the option afterwards: the kernel looks at it anew whenever another socket wants to join
// (inet_csk_bind_conflict, reuseport_add_sock). So nobody can slip in between a test and the bind. That it has a group,
// which the kernel makes for it at the bind or when another joins, is seen to before: see found.
func group[S interface{ Close() error }](exclusive bool, network, address string, n int,
	open func(address string, shared bool) (S, error), addr func(S) net.Addr,
) (sockets []S, err error) {
	defer func() {
		if err != nil {
			for _, s := range sockets {
				s.Close()
			}
			sockets = nil
		}
	}()
	if n < 1 {
		return nil, fmt.Errorf("reuseport: group of %d sockets on %s %s: there must be at least one", n, network, address)
	}
	if !spreads {
		return nil, fmt.Errorf("reuseport: group on %s %s: this system does not spread connections: %w", network, address, errors.ErrUnsupported)
	}
	for i := range n {
		first := i == 0
		s, err := open(address, !(first && exclusive))
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, s)
		if first && exclusive {
			if err := onConn(s, openToOthers); err != nil {
				return sockets, fmt.Errorf("reuseport: share %s %s: %w", network, address, err)
			}
		}
		address = addr(s).String() // the port that the kernel chose for the first
	}
	return sockets, nil
}

func (c *Config) listen(ctx context.Context, network, address string, shared bool) (net.Listener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fmt.Errorf("reuseport: listen on %s %s: want tcp, tcp4 or tcp6: %w", network, address, net.UnknownNetworkError(network))
	}
	if ctx.Err() != nil { // ListenConfig notices that only when it has to wait for something
		return nil, fmt.Errorf("reuseport: listen on %s %s: %w", network, address, context.Cause(ctx))
	}
	l, err := c.listenConfig(shared).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("reuseport: %w", err)
	}
	return l, nil
}

func (c *Config) listenPacket(ctx context.Context, network, address string, shared bool) (net.PacketConn, error) {
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return nil, fmt.Errorf("reuseport: listen on %s %s: want udp, udp4 or udp6: %w", network, address, net.UnknownNetworkError(network))
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("reuseport: listen on %s %s: %w", network, address, context.Cause(ctx))
	}
	p, err := c.listenConfig(shared).ListenPacket(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("reuseport: %w", err)
	}
	return p, nil
}

func (c *Config) listenConfig(shared bool) *net.ListenConfig {
	lc := &net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) error {
		prepare := share
		if !shared {
			prepare = found
		}
		if err := onSocket(rc, prepare); err != nil {
			return err
		}
		if c.Control != nil {
			return c.Control(network, address, rc)
		}
		return nil
	}}
	// Since Go 1.24 a listener is a Multipath TCP one where the kernel has that, and on those
	// SO_ATTACH_REUSEPORT_CBPF fails with EOPNOTSUPP.
	lc.SetMultipathTCP(false)
	return lc
}

func share(fd int) error { return setReusePort(fd, 1) }

// found makes the kernel's group of a socket that is not bound yet, without letting others join. Else a socket that is
// alone, and is given SO_REUSEPORT after the bind only, would have none, and could get no program. (A program is what
// makes the kernel do it now: reuseport_attach_prog.) Where that is refused, there is a group when the second member
// comes.
func found(fd int) error {
	if err := setReusePort(fd, 1); err != nil {
		return err
	}
	attach(fd, anyMember)
	return setReusePort(fd, 0)
}

// openToOthers lets others join a socket that is bound.
func openToOthers(fd int) error {
	if err := setReusePort(fd, 1); err != nil {
		return err
	}
	detach(fd) // if it cannot (Linux 5.3), the program does what the kernel does without one
	return nil
}

// anyMember leaves the choice to the kernel's hash, as any number does that no member has.
var anyMember = []bpf.RawInstruction{{Op: 0x06, K: ^uint32(0)}} // BPF_RET|BPF_K

// onConn calls f with the descriptor of a net.Listener, net.Conn or net.PacketConn.
func onConn(conn any, f func(fd int) error) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no descriptor: %w", conn, errors.ErrUnsupported)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return onSocket(rc, f)
}

func onSocket(rc syscall.RawConn, f func(fd int) error) error {
	var err error
	if cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}
