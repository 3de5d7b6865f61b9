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
// For TCP github.com/libp2p/go-reuseport sets the options, but in groups; see [Control].
//
// All functions are safe for concurrent use. Whoever gets a listener, a packet connection or a connection closes it.
package reuseport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"golang.org/x/net/bpf"
)

// Listen opens one TCP listener with SO_REUSEPORT; see [Config.Listen].
func Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return (&Config{}).Listen(ctx, network, address)
}

// ListenPacket opens one UDP socket with SO_REUSEPORT; see [Config.ListenPacket].
func ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return (&Config{}).ListenPacket(ctx, network, address)
}

// ListenGroup opens n TCP listeners on one address; see [Config.ListenGroup].
func ListenGroup(ctx context.Context, network, address string, n int) ([]net.Listener, error) {
	return (&Config{}).ListenGroup(ctx, network, address, n)
}

// ListenPacketGroup opens n UDP sockets on one address; see [Config.ListenPacketGroup].
func ListenPacketGroup(ctx context.Context, network, address string, n int) ([]net.PacketConn, error) {
	return (&Config{}).ListenPacketGroup(ctx, network, address, n)
}

// Config has options for opening sockets. The zero value is a good default. How many connections wait in the queue of a
// listener is not one of them: package net asks for as many as net.core.somaxconn allows.
type Config struct {
	// Exclusive refuses to join sockets that the call did not open itself: if anybody listens on the address
	// already, with SO_REUSEPORT or without, the error matches syscall.EADDRINUSE. Only what is there before
	// is refused; a process of the same user can still join afterwards. It is Linux's; on other systems the error
	// matches [errors.ErrUnsupported].
	Exclusive bool

	// Control, if set, is called with each socket before it is bound, after this package's own options are
	// set, as [net.ListenConfig.Control] is. All members of a group should get the same options.
	Control func(network, address string, c syscall.RawConn) error
}

// ListenConfig returns a configuration that opens listeners as [Listen] does, for packages that take one, and for its
// other fields, such as KeepAliveConfig. Its Control may be replaced by one that calls it. Unlike one that package net
// makes, it opens no Multipath TCP listeners, which take no program.
//
// A packet socket that it opens is as that of [ListenPacket], but for port 0, where it may get the port of another
// socket of this user that has SO_REUSEPORT: the option would have to be set after the bind.
func ListenConfig() *net.ListenConfig { return new(Config).listenConfig(listenerControl) }

// Listen opens one TCP listener, an [*net.TCPListener], with SO_REUSEPORT. network is tcp, tcp4 or tcp6, address as
// for [net.Listen]. Where listeners cannot share an address, as on Windows (see [Control]), the error matches
// [errors.ErrUnsupported].
func (c *Config) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if c.Exclusive {
		return one(c.ListenGroup(ctx, network, address, 1))
	}
	return c.listen(ctx, network, address, listenerControl)
}

// ListenPacket opens one UDP socket, an [*net.UDPConn], with SO_REUSEPORT. network is udp, udp4 or udp6, address as
// for [net.ListenPacket]. For port 0 the kernel chooses a port that no other socket has. Where sockets cannot share an
// address, as on Windows, the error matches [errors.ErrUnsupported].
func (c *Config) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if c.Exclusive || spreads && choosesPort(address) {
		return one(c.ListenPacketGroup(ctx, network, address, 1))
	}
	return c.listenPacket(ctx, network, address, listenerControl)
}

// ListenGroup opens n listeners on one address, in the order of their place in the kernel's group, or none at
// all. With port 0 the kernel chooses the port once, for all. They are [*net.TCPListener]s.
//
// Spreading over a group is Linux's; on other systems the error matches [errors.ErrUnsupported].
func (c *Config) ListenGroup(ctx context.Context, network, address string, n int) ([]net.Listener, error) {
	open := func(address string, prepare control) (net.Listener, error) {
		return c.listen(ctx, network, address, prepare)
	}
	return group(network, address, n, c.Exclusive, open, net.Listener.Addr)
}

// ListenPacketGroup opens n packet sockets on one address, in the order of their place in the kernel's group,
// or none at all. With port 0 the kernel chooses a port that no other socket has, once, for all. They are
// [*net.UDPConn]s.
//
// Spreading over a group is Linux's; on other systems the error matches [errors.ErrUnsupported].
func (c *Config) ListenPacketGroup(ctx context.Context, network, address string, n int) ([]net.PacketConn, error) {
	open := func(address string, prepare control) (net.PacketConn, error) {
		return c.listenPacket(ctx, network, address, prepare)
	}
	// To a UDP socket that shares its port the kernel also gives one that others of the user share already. To TCP
	// sockets it does not.
	return group(network, address, n, c.Exclusive || choosesPort(address), open, net.PacketConn.LocalAddr)
}

// control is what net.ListenConfig calls before it binds a socket.
type control = func(network, address string, c syscall.RawConn) error

// choosesPort reports whether the kernel chooses the port.
func choosesPort(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return address == "" || err == nil && strings.Trim(port, "0") == ""
}

func one[S any](sockets []S, err error) (s S, _ error) {
	if err != nil {
		return s, err
	}
	return sockets[0], nil
}

// group opens n sockets with open, or none. alone says that nobody else may have the address.
//
// The first socket is then bound without SO_REUSEPORT, which fails if anything else is bound there, and gets the option
// afterwards: the kernel looks at it anew whenever another socket wants to join (inet_csk_bind_conflict,
// udp_lib_lport_inuse, reuseport_add_sock). So nobody can slip in between a test and the bind. That it has a group,
// which the kernel makes for it at the bind or when another joins, is seen to before: see found.
func group[S interface{ Close() error }](network, address string, n int, alone bool,
	open func(address string, prepare control) (S, error), addr func(S) net.Addr,
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
		return nil, fmt.Errorf("reuseport: group on %s %s: this system does not spread connections: %w",
			network, address, errors.ErrUnsupported)
	}
	for i := range n {
		prepare, founds := share, alone && i == 0
		if founds {
			prepare = found
		}
		s, err := open(address, func(_, _ string, c syscall.RawConn) error { return onSocket(c, prepare) })
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, s)
		if founds {
			if err := onConn(s, openToOthers); err != nil {
				return sockets, fmt.Errorf("reuseport: share %s %s: %w", network, address, err)
			}
		}
		address = addr(s).String() // the port that the kernel chose for the first
	}
	return sockets, nil
}

func (c *Config) listen(ctx context.Context, network, address string, prepare control) (net.Listener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fmt.Errorf("reuseport: listen on %s %s: want tcp, tcp4 or tcp6: %w",
			network, address, net.UnknownNetworkError(network))
	}
	if ctx.Err() != nil { // ListenConfig notices that only when it has to wait for something
		return nil, fmt.Errorf("reuseport: listen on %s %s: %w", network, address, context.Cause(ctx))
	}
	l, err := c.listenConfig(prepare).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("reuseport: %w", err)
	}
	return l, nil
}

func (c *Config) listenPacket(ctx context.Context, network, address string, prepare control) (net.PacketConn, error) {
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return nil, fmt.Errorf("reuseport: listen on %s %s: want udp, udp4 or udp6: %w",
			network, address, net.UnknownNetworkError(network))
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("reuseport: listen on %s %s: %w", network, address, context.Cause(ctx))
	}
	p, err := c.listenConfig(prepare).ListenPacket(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("reuseport: %w", err)
	}
	return p, nil
}

func (c *Config) listenConfig(prepare control) *net.ListenConfig {
	lc := &net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) error {
		if err := prepare(network, address, rc); err != nil {
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
		return fmt.Errorf("%T has no descriptor (SyscallConn), want one socket: %w", conn, errors.ErrUnsupported)
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
