//go:build unix

package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

func cover(socket int) wire.Message {
	return wire.Message{Type: wire.Cover, Endpoint: &anyPort, Socket: socket}
}

func uncover(socket int) wire.Message {
	return wire.Message{Type: wire.Uncover, Endpoint: &anyPort, Socket: socket}
}

func drainSocket(socket int) wire.Message {
	return wire.Message{Type: wire.DrainSocket, Endpoint: &anyPort, Socket: socket}
}

// TestCover has a worker serve another's socket for a time, by one call of Serve.
func TestCover(t *testing.T) {
	var calls atomic.Int32
	single := drain.Foreign(&foreign{serve: func(l net.Listener) error {
		calls.Add(1)
		for {
			c, err := l.Accept()
			if err != nil {
				return nil
			}
			io.WriteString(c, "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello")
			go c.Close()
		}
	}})
	for name, server := range map[string]drain.Server{"http": hello(), "foreign": single} {
		t.Run(name, func(t *testing.T) {
			m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: server})
			m.expect(wire.Ready)
			other := listen(t)
			for range 3 {
				m.tell(cover(1), other.(syscall.Conn))
				for range 3 {
					for _, l := range []net.Listener{other, m.socket} {
						if err := get(dial(t, l), "/"); err != nil {
							t.Fatal(err)
						}
					}
				}
				m.tell(uncover(1))
				m.ping()
				c := dial(t, other) // waits for the worker whose the socket is
				accepted, err := other.Accept()
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				accepted.Close()
			}
			if v := m.ping(); v.Accepted != 18 {
				t.Errorf("it accepted %d connections, want 18", v.Accepted)
			}
			m.tell(uncover(1)) // once more is harmless
			m.tell(cover(1), other.(syscall.Conn))
			m.tell(cover(1), other.(syscall.Conn)) // in place of the other
			m.tell(wire.Message{Type: wire.Drain})
			m.expectEnd(0)
		})
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("Serve was called %d times", n)
	}
}

// TestCoverInVain wants the master to be told, so that it chooses another.
func TestCoverInVain(t *testing.T) {
	server, begun, release := busy()
	m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: server})
	m.expect(wire.Ready)
	other := listen(t)
	elsewhere := wire.Endpoint{Network: "tcp", Address: "elsewhere"}
	m.tell(wire.Message{Type: wire.Cover, Endpoint: &elsewhere, Socket: 2}, other.(syscall.Conn))
	if r := m.expect(wire.Covered); r.Socket != 2 || r.Endpoint.Address != "elsewhere" || r.Error == "" {
		t.Errorf("%+v", r.Message)
	}
	ours, theirs := socketPair(t) // no listening socket
	m.tell(cover(3), ours)
	m.tell(drainSocket(4), theirs)
	for range 2 {
		if r := m.expect(wire.Covered); r.Error == "" {
			t.Errorf("%+v", r.Message)
		}
	}
	// A worker that drains, and holds a connection yet, covers for nobody.
	waits, answered := dial(t, m.socket), make(chan error)
	go func() { answered <- get(waits, "/wait") }()
	<-begun
	m.tell(wire.Message{Type: wire.Drain})
	m.expect(wire.Closed)
	m.tell(cover(5), other.(syscall.Conn))
	if r := m.expect(wire.Covered); r.Socket != 5 || r.Error == "" {
		t.Errorf("%+v", r.Message)
	}
	release()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	m.expect(wire.End)
	m.expectNothing()
}

// TestDrainSocket has a worker serve a socket until nobody connects any more.
func TestDrainSocket(t *testing.T) {
	m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	other := listen(t)
	queued := dial(t, other)
	m.tell(drainSocket(1), other.(syscall.Conn))
	begun := time.Now()
	for _, c := range []net.Conn{queued, dial(t, other)} {
		if err := get(c, "/"); err != nil {
			t.Error(err)
		}
	}
	if r := m.expect(wire.Drained); r.Socket != 1 || *r.Endpoint != anyPort || time.Since(begun) < drainEmpty {
		t.Errorf("%+v after %v", r.Message, time.Since(begun))
	}
	// When it drains itself, it gives up, or is quick, if nobody else will do it.
	m.tell(drainSocket(2), other.(syscall.Conn))
	m.ping()
	m.tell(wire.Message{Type: wire.Drain})
	if r := m.expect(wire.Covered); r.Socket != 2 || r.Error == "" {
		t.Errorf("%+v", r.Message)
	}
	m.expectEnd(0)

	m = supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	m.tell(drainSocket(3), other.(syscall.Conn))
	m.ping()
	m.tell(finalDrain)
	m.expect(wire.Quiesce)
	queued = dial(t, other)
	m.tell(wire.Message{Type: wire.Quiesced})
	if err := get(queued, "/"); err != nil {
		t.Error(err)
	}
	if r := m.expect(wire.Drained); r.Socket != 3 {
		t.Errorf("%+v", r.Message)
	}
	m.expectEnd(0)
}

// TestFinalDrainServesAllQueues has connections wait in the queues of the own socket and of one that is covered.
func TestFinalDrainServesAllQueues(t *testing.T) {
	for _, err := range []string{"", "there is no such filter"} {
		m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
		m.expect(wire.Ready)
		other := listen(t)
		m.tell(cover(1), other.(syscall.Conn))
		m.ping()
		m.tell(finalDrain)
		m.expect(wire.Quiesce)
		queued := make(chan error)
		for i := range 100 {
			c := dial(t, []net.Listener{m.socket, other}[i%2])
			go func() { queued <- get(c, "/") }()
		}
		m.tell(wire.Message{Type: wire.Quiesced, Error: err})
		var errs []error
		for range 100 {
			errs = append(errs, <-queued)
		}
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		m.expectEnd(0)
	}
}

// TestUnserved has the queue of an endpoint that others do not serve be emptied in a drain that is not final.
func TestUnserved(t *testing.T) {
	second := wire.Endpoint{Network: "tcp", Address: "127.0.0.1:0", Index: 1}
	alone := listen(t)
	var c Config
	m := prepare(t, &c, Handle{Endpoint: anyPort, Server: hello()}, Handle{Endpoint: second, Server: hello()})
	m.onAsk = func(r wire.Received) {
		socket := m.socket
		if *r.Endpoint == second {
			socket = alone
		}
		m.tell(wire.Message{Type: wire.Socket}, socket.(syscall.Conn))
	}
	blocked, release := make(chan struct{}), make(chan struct{})
	c.OnShutdown = func(context.Context) { close(blocked); <-release }
	m.start(t.Context(), c)
	m.expect(wire.Hello)
	m.expect(wire.Ready)
	m.tell(wire.Message{Type: wire.Drain, HandOver: true, Unserved: []wire.Endpoint{second}})
	<-blocked
	queued := dial(t, alone)
	close(release)
	m.expect(wire.Quiesce)
	m.tell(wire.Message{Type: wire.Quiesced})
	if err := get(queued, "/"); err != nil {
		t.Error(err)
	}
	m.expectEnd(0)
}
