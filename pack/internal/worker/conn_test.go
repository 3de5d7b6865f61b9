//go:build unix

package worker

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// taken are the connections that a server's user got.
type taken chan net.Conn

// tcp is a server whose handler keeps a connection until it is closed by who has taken it.
func (t taken) tcp() drain.Server {
	return drain.NewTCP(nil, func(ctx context.Context, c net.Conn) {
		closed := make(chan struct{})
		t <- notifying{c, sync.OnceFunc(func() { close(closed) })}
		<-closed
	})
}

// notifying is a connection that tells when it is closed.
type notifying struct {
	net.Conn
	closed func()
}

func (c notifying) Close() error {
	defer c.closed() // then the server closes it again
	return c.Conn.Close()
}

// http is a server whose handler takes over the connections.
func (t taken) http() drain.Server { return drain.NewHTTP(&http.Server{Handler: t.hijack()}) }

// http2, too, is such a server, of which idle connections are not handed over.
func (t taken) http2() drain.Server {
	srv := &http.Server{Handler: t.hijack(), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return drain.NewHTTP(srv)
}

func (t taken) hijack() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			t <- c
		}
	})
}

// foreign is a server that somebody else wrote.
func (t taken) foreign() drain.Server {
	return drain.Foreign(&foreign{serve: func(l net.Listener) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			t <- c
		}
	}})
}

// ask has an HTTP server look at a connection.
func ask(c net.Conn) error {
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	return err
}

// TestConns has what others want of any net.Conn tried with those that a worker's servers, and their handlers, get:
// accepted from its socket, handed over by another worker, and in line. (Those of crypto/tls do not pass anywhere: a
// Write that has timed out is the end of them.)
func TestConns(t *testing.T) {
	plain := func(l net.Listener) (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }
	asking := func(l net.Listener) (net.Conn, error) {
		c, err := plain(l)
		if err != nil {
			return nil, err
		}
		return c, ask(c)
	}
	for _, tt := range []struct {
		name    string
		server  func(taken) drain.Server
		connect func(net.Listener) (net.Conn, error) // to the worker's socket
	}{
		{"TCP", taken.tcp, plain},
		{"hijacked", taken.http, asking},
		{"hijacked, of HTTP/2", taken.http2, asking},
		{"of another's server", taken.foreign, plain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conns := make(taken, 1)
			m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: tt.server(conns)})
			m.expect(wire.Ready)
			conns.try(t, func() (net.Conn, error) { return tt.connect(m.socket) })
			m.endsWell()
		})
		t.Run(tt.name+", in line", func(t *testing.T) {
			t.Parallel()
			conns, socket := make(taken, 1), listen(t)
			c := Config{Log: slog.New(slog.DiscardHandler), ShutdownTimeout: limit}
			c.Handles = func() []Handle { return []Handle{{Endpoint: anyPort, Server: tt.server(conns)}} }
			ctx, cancel := context.WithCancel(t.Context())
			own := func(context.Context, wire.Endpoint, bool) (io.Closer, error) { return copyOf(t, socket), nil }
			cut, err := RunInline(ctx, c, own, func() error { return nil }, func() {
				conns.try(t, func() (net.Conn, error) { return tt.connect(socket) })
				cancel()
			})
			if cut != 0 || err != nil {
				t.Errorf("cut %d, error %v", cut, err)
			}
		})
	}
	t.Run("handed over, hijacked", func(t *testing.T) {
		t.Parallel()
		conns, before := make(taken, 1), listen(t) // another worker's socket
		m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: conns.http()})
		m.expect(wire.Ready)
		conns.try(t, func() (net.Conn, error) {
			client, err := plain(before)
			if err != nil {
				return nil, err
			}
			accepted, err := before.Accept()
			if err != nil {
				return nil, err
			}
			defer accepted.Close()
			m.tell(wire.Message{Type: wire.Handover, Endpoint: &anyPort}, accepted.(syscall.Conn))
			return client, ask(client)
		})
		m.endsWell()
	})
}

// try tries connections that connect opens, and that are taken then.
func (t taken) try(tt *testing.T, connect func() (net.Conn, error)) {
	nettest.TestConn(tt, func() (ours, theirs net.Conn, stop func(), err error) {
		theirs, err = connect()
		if err != nil {
			return nil, nil, nil, err
		}
		ours = <-t
		return ours, theirs, func() { ours.Close(); theirs.Close() }, nil
	})
}

// endsWell has the worker drain, and wants nothing to be cut.
func (m *fakeMaster) endsWell() {
	m.t.Helper()
	m.tell(finalDrain)
	m.expect(wire.Quiesce)
	m.tell(wire.Message{Type: wire.Quiesced})
	m.expectEnd(0)
}
