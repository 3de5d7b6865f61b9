package worker

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// defers has a socket let clients in when they have spoken, as the master does.
func defers(t *testing.T, l net.Listener) {
	t.Helper()
	rc, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1) })
	if err != nil {
		t.Fatal(err)
	}
}

// thinks has a client connect, say nothing for a while, and then ask for something.
func thinks(t *testing.T, l net.Listener) <-chan error {
	t.Helper()
	begun := time.Now()
	c := dial(t, l)
	answered := make(chan error, 1)
	go func() {
		time.Sleep(300 * time.Millisecond) // that is what it is about
		err := get(c, "/")
		if late := time.Since(begun); err != nil && late > time.Second {
			t.Logf("%v after %v, when nobody waits any more", err, late)
			err = nil
		}
		answered <- err
	}()
	return answered
}

// TestSilentClientsAreWaitedFor has clients that were not let in yet be served in every drain after which a socket is
// closed: the test has no copy of it.
func TestSilentClientsAreWaitedFor(t *testing.T) {
	served := func(t *testing.T, m *fakeMaster, answered <-chan error) {
		t.Helper()
		if err := <-answered; err != nil {
			t.Error(err)
		}
		m.await(wire.Closed)
		m.await(wire.End)
	}
	for _, failure := range []string{"", "there is no such filter"} {
		t.Run("final "+failure, func(t *testing.T) {
			t.Parallel()
			m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
			m.expect(wire.Ready)
			other := listen(t)
			defers(t, m.socket)
			defers(t, other)
			m.tell(cover(1), other.(syscall.Conn))
			m.ping()
			answered, covered := thinks(t, m.socket), thinks(t, other)
			m.tell(finalDrain)
			m.expect(wire.Quiesce)
			m.socket.Close()
			other.Close()
			m.tell(wire.Message{Type: wire.Quiesced, Error: failure})
			if err := <-covered; err != nil {
				t.Error(err)
			}
			served(t, m, answered)
		})
	}
	t.Run("unserved", func(t *testing.T) {
		t.Parallel()
		m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
		m.expect(wire.Ready)
		defers(t, m.socket)
		answered := thinks(t, m.socket)
		m.tell(wire.Message{Type: wire.Drain, Unserved: []wire.Endpoint{anyPort}})
		m.expect(wire.Quiesce)
		m.socket.Close()
		m.tell(wire.Message{Type: wire.Quiesced})
		served(t, m, answered)
	})
	t.Run("orphaned", func(t *testing.T) {
		t.Parallel()
		m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
		m.expect(wire.Ready)
		defers(t, m.socket)
		answered := thinks(t, m.socket)
		m.socket.Close()
		m.conn.Close()
		if err := <-answered; err != nil {
			t.Error(err)
		}
		m.expectNothing()
	})
	t.Run("drained", func(t *testing.T) {
		t.Parallel()
		m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
		m.expect(wire.Ready)
		other := listen(t)
		defers(t, other)
		silent := dial(t, other)
		m.tell(drainSocket(1), other.(syscall.Conn))
		m.ping()
		other.Close()
		m.expect(wire.Drained)
		if err := get(silent, "/"); err != nil { // it was let in after a second
			t.Error(err)
		}
		m.tell(wire.Message{Type: wire.Drain})
		m.expectEnd(0)
	})
}

// TestSilentClientsInline has a pack in line be stopped.
func TestSilentClientsInline(t *testing.T) {
	k := sockets.New(sockets.Files{})
	defer k.Close()
	ctx, cancel := context.WithCancel(t.Context())
	c := Config{Log: slog.New(slog.DiscardHandler), ShutdownTimeout: limit}
	c.Handles = func() []Handle { return []Handle{{Endpoint: anyPort, Server: hello()}} }
	var answered <-chan error
	listen := func(ctx context.Context, e wire.Endpoint, defers bool) (io.Closer, error) {
		if _, err := k.Open(ctx, e, 1); err != nil {
			return nil, err
		}
		k.Defer(e, defers)
		return k.Socket(e, 0)
	}
	cut, err := RunInline(ctx, c, listen, func() error { return k.QuiesceFinal(0) }, func() {
		l, err := k.Socket(anyPort, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		answered = thinks(t, l.(net.Listener))
		cancel()
	})
	k.Close()
	if err := <-answered; err != nil || cut > 0 {
		t.Errorf("%v, %d cut", err, cut)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestWhoDefers is about of which servers the clients speak first.
func TestWhoDefers(t *testing.T) {
	raw := drain.NewTCP(nil, func(context.Context, net.Conn) {})
	others := drain.Foreign(&foreign{})
	wraps := func(_, _ string, l net.Listener) net.Listener { return l }
	unix := wire.Endpoint{Network: "unix", Address: "x"}
	for _, tt := range []struct {
		name   string
		config Config
		handle Handle
		want   bool
	}{
		{"HTTP", Config{}, Handle{Endpoint: anyPort, Server: drain.NewHTTP(&http.Server{})}, true},
		{"a Unix socket", Config{}, Handle{Endpoint: unix, Server: drain.NewHTTP(&http.Server{})}, false},
		{"accepted at once", Config{AcceptAtOnce: true}, Handle{Endpoint: anyPort, Server: drain.NewHTTP(&http.Server{})}, false},
		{"wrapped", Config{Wrap: wraps}, Handle{Endpoint: anyPort, Server: drain.NewHTTP(&http.Server{})}, false},
		{"raw", Config{}, Handle{Endpoint: anyPort, Server: raw}, false},
		{"others'", Config{}, Handle{Endpoint: anyPort, Server: others}, false},
	} {
		if got := (&service{Config: &tt.config}).defers(tt.handle); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
