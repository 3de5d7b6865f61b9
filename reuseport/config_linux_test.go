package reuseport_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/reuseport"
)

// fewPorts limits the ports that the kernel may choose for a socket to 32 (IP_LOCAL_PORT_RANGE, ip(7), Linux 6.3), so
// that two that may share one do so soon.
func fewPorts(_, _ string, c syscall.RawConn) (err error) {
	var portRange uint32 = 41031<<16 | 41000
	cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_LOCAL_PORT_RANGE, int(portRange))
	})
	return errors.Join(cerr, err)
}

// TestPortsOfTheirOwn lets the kernel choose the ports of many sockets and groups of one user: it chooses each once.
func TestPortsOfTheirOwn(t *testing.T) {
	c := &reuseport.Config{Control: fewPorts}
	for network, address := range map[string]string{"udp": ":0", "udp4": "127.0.0.1:", "udp6": "[::1]:00"} {
		t.Run(network+" alone", func(t *testing.T) {
			checkPorts(t, func() ([]net.PacketConn, error) {
				p, err := c.ListenPacket(t.Context(), network, address)
				return []net.PacketConn{p}, err
			})
		})
		t.Run(network+" group", func(t *testing.T) {
			checkPorts(t, func() ([]net.PacketConn, error) {
				return c.ListenPacketGroup(t.Context(), network, address, 2)
			})
		})
	}
}

func checkPorts(t *testing.T, open func() ([]net.PacketConn, error)) {
	t.Helper()
	seen := map[string]bool{}
	for range 20 {
		sockets, err := open()
		if errors.Is(err, syscall.ENOPROTOOPT) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		own := sockets[0].LocalAddr().String()
		if seen[own] {
			t.Errorf("two share %s", own)
		}
		seen[own] = true
		for _, p := range sockets {
			defer p.Close()
			if p.LocalAddr().String() != own {
				t.Errorf("members on %s and %s", own, p.LocalAddr())
			}
		}
	}
}

// TestConfigOfOne opens single sockets with the options of groups.
func TestConfigOfOne(t *testing.T) {
	var controlled []string
	note := func(network, _ string, _ syscall.RawConn) error {
		controlled = append(controlled, network)
		return nil
	}
	shares, alone := &reuseport.Config{Control: note}, &reuseport.Config{Exclusive: true, Control: note}
	l, err := shares.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := shares.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	address, paddress := l.Addr().String(), p.LocalAddr().String()
	if l, err := shares.Listen(t.Context(), "tcp4", address); err != nil {
		t.Errorf("a second listener: %v", err)
	} else {
		l.Close()
	}
	if p, err := shares.ListenPacket(t.Context(), "udp4", paddress); err != nil {
		t.Errorf("a second packet socket: %v", err)
	} else {
		p.Close()
	}
	if l, err := alone.Listen(t.Context(), "tcp4", address); !errors.Is(err, syscall.EADDRINUSE) || l != nil {
		t.Errorf("exclusive on an address in use: %v, %v; want EADDRINUSE", l, err)
	}
	if p, err := alone.ListenPacket(t.Context(), "udp4", paddress); !errors.Is(err, syscall.EADDRINUSE) || p != nil {
		t.Errorf("exclusive on an address in use: %v, %v; want EADDRINUSE", p, err)
	}
	if want := "tcp4 udp4 tcp4 udp4 tcp4 udp4"; strings.Join(controlled, " ") != want {
		t.Errorf("Control was called for %v, want %s", controlled, want)
	}
}

// TestListenConfig has programs attached to listeners that package net makes by it, and not to its own.
func TestListenConfig(t *testing.T) {
	takesPrograms(t)
	lc := reuseport.ListenConfig()
	first, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := reuseport.Limit(first, 1); err != nil {
		t.Error(err)
	}
	second, err := lc.Listen(context.Background(), "tcp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	p, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()

	multipath, err := (&net.ListenConfig{Control: reuseport.Control}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer multipath.Close()
	for _, err := range []error{
		reuseport.Limit(multipath, 1), reuseport.Quiesce(multipath), reuseport.Resume(multipath), reuseport.Detach(multipath),
	} {
		if errors.Is(err, syscall.EOPNOTSUPP) && !strings.Contains(err.Error(), "open it by Listen or ListenConfig") {
			t.Errorf("%v; want it to say how to open the listener", err)
		}
	}
}

// wrapped is a listener without a descriptor.
type wrapped struct{ net.Listener }

// TestNoDescriptor is about what cannot be a socket.
func TestNoDescriptor(t *testing.T) {
	group := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", 2)
	for _, conn := range []any{nil, group, wrapped{group[0]}, "socket"} {
		_, err := reuseport.IncomingCPU(conn)
		for _, err := range []error{
			err, reuseport.AttachCPU(conn, map[int]int{0: 0}), reuseport.Limit(conn, 1), reuseport.Detach(conn),
			reuseport.Quiesce(conn), reuseport.Resume(conn),
		} {
			if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "has no descriptor") {
				t.Errorf("%T: %v; want that it has no descriptor", conn, err)
			}
		}
	}
}
