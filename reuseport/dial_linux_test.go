package reuseport_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/reuseport"
)

// dial connects, and closes the connection when the test ends.
func dial(t *testing.T, network, local, address string) net.Conn {
	t.Helper()
	c, err := reuseport.Dial(t.Context(), network, local, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// packetConn opens a socket that shares nothing, and is closed when the test ends.
func packetConn(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	p, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p.(*net.UDPConn)
}

// receive returns the next datagram, or "" if none comes in time.
func receive(p net.Conn, within time.Duration) string {
	p.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 100)
	n, _ := p.Read(buf)
	return string(buf[:n])
}

// queued returns a datagram that has come already, if there is one.
func queued(t *testing.T, c net.Conn) string {
	t.Helper()
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf, n := make([]byte, 100), 0
	rc.Read(func(fd uintptr) bool {
		n, _, _ = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		return true
	})
	return string(buf[:max(n, 0)])
}

// TestDialTCP dials from the port of a listener, which goes on, to several others.
func TestDialTCP(t *testing.T) {
	for network, host := range map[string]string{"tcp": "127.0.0.1", "tcp4": "127.0.0.1", "tcp6": "[::1]"} {
		here := openGroup(t, &reuseport.Config{}, network, host+":0", 2)
		local := here[0].Addr().String()
		for range 2 {
			there, err := net.Listen(network, host+":0")
			if err != nil {
				t.Fatal(err)
			}
			defer there.Close()
			address := there.Addr().String()
			c := dial(t, network, local, address)
			if c.LocalAddr().String() != local || c.RemoteAddr().String() != address {
				t.Errorf("%s: from %s to %s; want from %s", network, c.LocalAddr(), c.RemoteAddr(), local)
			}
			if again, err := reuseport.Dial(t.Context(), network, local, address); !errors.Is(err, syscall.EADDRNOTAVAIL) {
				t.Errorf("%s: the same connection again: %v, %v; want EADDRNOTAVAIL", network, again, err)
			}
		}
		if got, _ := connectAndCount(t, here, 100); got[0]+got[1] != 100 {
			t.Errorf("%s: the listeners of the port got %v", network, got)
		}
	}
}

// TestDialAfterServer dials from a port on which the connections of a server have ended lately, and linger.
func TestDialAfterServer(t *testing.T) {
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp4", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	served, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	served.Close() // first, so its end is the one in TIME_WAIT
	client.Read(make([]byte, 1))
	client.Close()
	server.Close()
	there, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	dial(t, "tcp4", server.Addr().String(), there.Addr().String())
}

// TestDialUDP dials from the port of a group: the peer's datagrams come to the connection, and all others to the group.
func TestDialUDP(t *testing.T) {
	takesPrograms(t)
	for network, host := range map[string]string{"udp4": "127.0.0.1", "udp6": "[::1]"} {
		group, err := reuseport.ListenPacketGroup(t.Context(), network, host+":0", 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range group {
			defer p.Close()
		}
		local := group[0].LocalAddr().String()
		for range 5 {
			peer := packetConn(t, host+":0")
			checkPeer(t, group, dial(t, network, local, peer.LocalAddr().String()), peer)
		}
	}
}

// TestDialUDPFirst has others join the port of a connection, which was the first there.
func TestDialUDPFirst(t *testing.T) {
	takesPrograms(t)
	for network, host := range map[string]string{"udp4": "127.0.0.1", "udp6": "[::1]"} {
		for _, local := range []string{host + ":0", ":0"} {
			peer := packetConn(t, host+":0")
			c := dial(t, network, local, peer.LocalAddr().String())
			group := make([]net.PacketConn, 2)
			for i := range group {
				var err error
				if group[i], err = reuseport.ListenPacket(t.Context(), network, c.LocalAddr().String()); err != nil {
					t.Fatal(err)
				}
				defer group[i].Close()
			}
			checkPeer(t, group, c, peer)
		}
	}
}

// checkPeer sends datagrams from the peer of a connection, which it must get, and others, which the group must.
func checkPeer(t *testing.T, group []net.PacketConn, c net.Conn, peer *net.UDPConn) {
	t.Helper()
	fmt.Fprint(c, "hello")
	if said := receive(peer, time.Minute); said != "hello" {
		t.Fatalf("the peer got %q", said)
	}
	for i := range 10 {
		text := fmt.Sprint("answer ", i)
		if _, err := peer.WriteTo([]byte(text), c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if got := receive(c, time.Minute); got != text {
			t.Errorf("the connection got %q, want %q", got, text)
		}
	}
	got := make(chan string)
	for _, p := range group {
		go func() { got <- receive(p.(*net.UDPConn), time.Minute) }()
	}
	for missing := 2; missing > 0; {
		stranger := packetConn(t, "127.0.0.1:0")
		if strings.Contains(c.LocalAddr().String(), "::") {
			stranger = packetConn(t, "[::1]:0")
		}
		if _, err := stranger.WriteTo([]byte("x"), c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		select {
		case text := <-got:
			if missing--; text != "x" {
				t.Errorf("a member of the group got %q", text)
			}
		case <-time.After(5 * time.Millisecond): // to one that has told already
		}
	}
}

// TestDialUDPDeaf dials while datagrams pour in for the group: none is taken for one of the peer.
func TestDialUDPDeaf(t *testing.T) {
	takesPrograms(t)
	p, err := reuseport.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	for range 2 {
		flood.Go(func() {
			for ctx.Err() == nil {
				for range 20 { // other ports, so that some hash to the new member
					if c, err := net.Dial("udp4", p.LocalAddr().String()); err == nil {
						c.Write([]byte("of a stranger"))
						c.Write([]byte("of a stranger"))
						c.Close()
					}
				}
			}
		})
	}
	peer := packetConn(t, "127.0.0.1:0")
	for range 300 {
		c, err := reuseport.Dial(t.Context(), "udp4", p.LocalAddr().String(), peer.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		text := queued(t, c)
		c.Close()
		if text != "" {
			t.Fatalf("the connection got %q", text)
		}
	}
}

// TestDialAlone lets the kernel choose the port, which others can share then.
func TestDialAlone(t *testing.T) {
	there, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	peer := packetConn(t, "127.0.0.1:0")
	for _, local := range []string{"", ":0", "127.0.0.1:0"} {
		tcp := dial(t, "tcp", local, there.Addr().String())
		if l, err := reuseport.Listen(t.Context(), "tcp", tcp.LocalAddr().String()); err != nil {
			t.Errorf("from %q: listen on the port: %v", local, err)
		} else {
			l.Close()
		}
		udp := dial(t, "udp", local, peer.LocalAddr().String())
		if p, err := reuseport.ListenPacket(t.Context(), "udp", udp.LocalAddr().String()); err != nil {
			t.Errorf("from %q: open the port: %v", local, err)
		} else {
			p.Close()
		}
	}
}

func TestDialErrors(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	address := taken.Addr().String()
	for _, tt := range []struct {
		ctx                     context.Context
		network, local, address string
		want                    string
		is                      error
	}{
		{t.Context(), "unix", "", "/tmp/x", "want tcp, tcp4, tcp6, udp, udp4 or udp6", net.UnknownNetworkError("unix")},
		{t.Context(), "tcp", "localhost", address, "from localhost to " + address + ": address localhost: missing", nil},
		{t.Context(), "udp", "127.0.0.1:99999", address, "invalid port", nil},
		{t.Context(), "tcp4", "[::1]:0", address, "", nil},
		{t.Context(), "tcp4", address, address, "address already in use", syscall.EADDRINUSE}, // it does not share
		{canceled, "tcp4", "127.0.0.1:0", address, "canceled", nil},
	} {
		c, err := reuseport.Dial(tt.ctx, tt.network, tt.local, tt.address)
		if err == nil {
			c.Close()
			t.Errorf("%s from %q: no error", tt.network, tt.local)
			continue
		}
		if tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s from %q: %v; want an error about %q", tt.network, tt.local, err, tt.want)
		}
	}
}

// TestOptions is about what each kind of socket gets.
func TestOptions(t *testing.T) {
	takesPrograms(t)
	option := func(conn any, option int) (value int) {
		rc, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		rc.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option) })
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	l := openGroup(t, &reuseport.Config{}, "tcp4", "127.0.0.1:0", 1)[0]
	p, err := reuseport.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	there := packetConn(t, "127.0.0.1:0")
	controlled, err := (&net.ListenConfig{Control: reuseport.Control}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer controlled.Close()
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for _, tt := range []struct {
		name        string
		conn        any
		reuseaddr   int
		reuseport   int
		description string
	}{
		{"a listener", l, 1, 1, "as package net makes them"},
		{"a packet socket", p, 0, 1, "any user could take its address"},
		{"a packet socket by Control", controlled, 0, 1, "any user could take its address"},
		{"a TCP connection", dial(t, "tcp4", l.Addr().String(), tcp.Addr().String()), 1, 1, "TIME_WAIT"},
		{"a UDP connection", dial(t, "udp4", p.LocalAddr().String(), there.LocalAddr().String()), 0, 1, "any user"},
		{"a UDP connection of its own", dial(t, "udp4", ":0", there.LocalAddr().String()), 0, 1, "any user"},
	} {
		addr, port := option(tt.conn, unix.SO_REUSEADDR), option(tt.conn, unix.SO_REUSEPORT)
		if addr != tt.reuseaddr || port != tt.reuseport {
			t.Errorf("%s: SO_REUSEADDR %d, SO_REUSEPORT %d; want %d (%s), %d",
				tt.name, addr, port, tt.reuseaddr, tt.description, tt.reuseport)
		}
	}
}
