//go:build unix

package worker

import (
	"context"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/internal/fdmsg"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// socketPair returns the two ends of a socket.
func socketPair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	ours, f, err := fdmsg.Pair("test")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	theirs, err = fdmsg.Conn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// TestHandover has idle connections go from one worker to the next and on.
func TestHandover(t *testing.T) {
	const clients = 20
	m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	var conns []net.Conn
	for i := range clients {
		conns = append(conns, dial(t, m.socket))
		if i%2 == 0 { // others are fresh
			if err := get(conns[i], "/"); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.until("all are accepted", func() bool {
		m.mu.Unlock()
		defer m.mu.Lock()
		return m.ping().Conns == clients
	})
	for range 3 {
		next := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
		next.expect(wire.Ready)
		m.tell(wire.Message{Type: wire.Drain, HandOver: true})
		moved := 0
		for r := range m.rest() {
			switch r.Type {
			case wire.Handover:
				moved++
				next.tell(wire.Message{Type: wire.Handover, Endpoint: r.Endpoint}, r.Files[0])
			case wire.Closed, wire.End:
			default:
				t.Errorf("%+v", r.Message)
			}
		}
		if moved != clients {
			t.Errorf("%d connections were handed over, of %d", moved, clients)
		}
		for _, c := range conns {
			if err := get(c, "/"); err != nil {
				t.Fatal(err)
			}
		}
		if v := next.ping(); v.Conns != clients || v.Accepted != 0 {
			t.Errorf("vitals %+v", v)
		}
		m = next
	}
	m.tell(finalDrain)
	m.expect(wire.Quiesce)
	m.tell(wire.Message{Type: wire.Quiesced})
	m.expectEnd(0)
}

// TestHandoverEnds has connections stay, since those to which they would go drain, too.
func TestHandoverEnds(t *testing.T) {
	proceed := make(chan struct{})
	c := Config{DrainDelay: func(bool) time.Duration { return limit }, OnShutdown: func(context.Context) { <-proceed }}
	m := supervise(t, c, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	client := dial(t, m.socket)
	if err := get(client, "/"); err != nil {
		t.Fatal(err)
	}
	m.tell(wire.Message{Type: wire.EndHandover}) // too early: it is answered when the worker drains
	m.ping()
	m.tell(wire.Message{Type: wire.Drain, HandOver: true})
	m.expect(wire.HandoverEnded)
	m.tell(wire.Message{Type: wire.EndHandover})
	m.expect(wire.HandoverEnded)
	close(proceed)
	m.expect(wire.Closed)
	if err := get(client, "/"); err != nil {
		t.Error(err)
	}
	if r := m.expect(wire.End); r.Cut != 0 {
		t.Errorf("cut %d", r.Cut)
	}
	m.expectNothing()
}

// TestArrivalsHoldUpNothing has many connections arrive at once.
func TestArrivalsHoldUpNothing(t *testing.T) {
	m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	const arrivals = 100
	var ours [arrivals]*net.UnixConn
	for i := range ours {
		var theirs *net.UnixConn
		ours[i], theirs = socketPair(t)
		m.tell(wire.Message{Type: wire.Handover, Endpoint: &anyPort}, theirs)
		theirs.Close()
	}
	m.ping()
	for _, c := range ours {
		if err := get(c, "/"); err != nil {
			t.Fatal(err)
		}
	}
	m.tell(wire.Message{Type: wire.Drain})
	m.expectEnd(0)
}

// TestArrivesTooLate has a connection arrive at a worker that has closed its sockets: it goes on.
func TestArrivesTooLate(t *testing.T) {
	server, begun, release := busy()
	m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: server})
	m.expect(wire.Ready)
	client, waits := dial(t, m.socket), dial(t, m.socket)
	if err := get(client, "/"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error)
	go func() { answered <- get(waits, "/wait") }()
	<-begun
	m.tell(wire.Message{Type: wire.Drain, HandOver: true})
	m.await(wire.Closed)
	first := m.await(wire.Handover)
	m.tell(wire.Message{Type: wire.Handover, Endpoint: &anyPort}, first.Files[0])
	first.Close()
	again := m.expect(wire.Handover)
	again.Close()
	release()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	for r := range m.rest() { // the other one goes, too, when it is answered
		if r.Type != wire.Handover && r.Type != wire.End {
			t.Errorf("%+v", r.Message)
		}
	}
}

// TestArrivesAtNobody has connections arrive at servers that cannot take them.
func TestArrivesAtNobody(t *testing.T) {
	strange := drain.NewTCP(nil, func(context.Context, net.Conn) {})
	m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: strange})
	m.expect(wire.Ready)
	for _, e := range []wire.Endpoint{anyPort, {Network: "tcp", Address: "elsewhere"}} {
		ours, theirs := socketPair(t)
		m.tell(wire.Message{Type: wire.Handover, Endpoint: &e}, theirs)
		theirs.Close()
		ours.SetDeadline(time.Now().Add(limit))
		if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%v: %v", e, err)
		}
	}
	m.tell(wire.Message{Type: wire.Handover, Endpoint: &anyPort}, m.socket.(syscall.Conn)) // no connection
	m.ping()
	m.tell(wire.Message{Type: wire.Drain})
	m.expectEnd(0)
	if m.log.count(slog.LevelWarn, "no server of this worker takes them for tcp 127.0.0.1:0") != 1 ||
		m.log.count(slog.LevelInfo, "connections=3") != 1 || m.log.count(slog.LevelError, "") != 0 {
		t.Errorf("it logged\n%s", m.log)
	}
}
