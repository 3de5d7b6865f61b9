//go:build linux

package drain

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
)

// served is a server with one client.
type served struct {
	*HTTP
	t      *testing.T
	socket net.Listener
	ended  chan struct{} // closed when Serve has returned
	tls    *tls.Config   // of clients; nil without TLS
	client net.Conn
	reader *bufio.Reader
}

// kinds are the ways in which a server's connections are followed.
var kinds = []string{"movable", "arrived", "plain", "tls 1.3", "tls 1.2"}

func serve(t *testing.T, kind string, tune func(*http.Server)) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: echoHandler()}
	if tune != nil {
		tune(srv)
	}
	s := &served{HTTP: NewHTTP(srv), t: t, socket: l, ended: make(chan struct{})}
	switch kind {
	case "tls 1.3", "tls 1.2":
		srv.TLSConfig = cmp.Or(srv.TLSConfig, &tls.Config{})
		srv.TLSConfig.Certificates = []tls.Certificate{test.SelfSigned(t)}
		s.tls = &tls.Config{
			InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1),
			NextProtos: srv.TLSConfig.NextProtos,
		}
		if kind == "tls 1.2" {
			s.tls.MaxVersion = tls.VersionTLS12
		}
	}
	serveOn := l
	switch kind {
	case "movable":
		serveOn = s.Movable(l, nil, boundForever())
	case "arrived":
		serveOn = s.Movable(arriving{l}, nil, boundForever())
	}
	go func() {
		defer close(s.ended)
		s.Serve(serveOn)
	}()
	s.client = s.dial()
	s.reader = bufio.NewReader(s.client)
	t.Cleanup(func() {
		s.client.Close()
		s.socket.Close()
		s.Server.Close()
		<-s.ended
	})
	return s
}

// dial connects another client.
func (s *served) dial() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.socket.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if s.tls == nil {
		return c
	}
	secure := tls.Client(c, s.tls)
	if err := secure.Handshake(); err != nil {
		s.t.Fatal(err)
	}
	return secure
}

// arriving is a listener whose connections another worker has handed over.
type arriving struct{ net.Listener }

func (l arriving) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Arrived(c), nil
}

func boundForever() *atomic.Bool {
	bound := new(atomic.Bool)
	bound.Store(true)
	return bound
}

func (s *served) write(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.client, text); err != nil {
		s.t.Fatal(err)
	}
}

// answered wants an answer to a request for /1, and returns whether it asks to close.
func (s *served) answered() (last bool) {
	s.t.Helper()
	resp, err := http.ReadResponse(s.reader, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "1:" {
		s.t.Errorf("answered %q, %v", body, err)
	}
	return resp.Close
}

// begins waits until the server has read the beginning of a request.
func (s *served) begins() {
	s.t.Helper()
	waitFor(s.t, "the beginning of a request", s.hasBegun)
}

func (s *served) hasBegun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		return c.own.begun()
	}
	return false
}

// handles reports whether the only connection's request is being handled.
func (s *served) handles() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		return c.isHandling()
	}
	return true // it has given up
}

// handlers returns how many requests are being handled.
func (s *served) handlers() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.isHandling() {
			n++
		}
	}
	return n
}

func (c *httpConn) isHandling() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == handling
}

// drain has the server drain, and returns a channel that is told what comes of it.
func (s *served) drain(ctx context.Context) <-chan error {
	s.BeginDrain(0, false)
	s.socket.Close()
	<-s.ended
	drained := make(chan error, 1)
	go func() { drained <- s.Shutdown(ctx) }()
	return drained
}

const request = "GET /1 HTTP/1.1\r\nHost: x\r\nX: ..........................................................\r\n\r\n"

// TestHalfRequest drains a server that has read a part of a request: the rest of it is waited for.
func TestHalfRequest(t *testing.T) {
	for _, kind := range kinds {
		for _, kept := range []bool{false, true} {
			for _, cut := range []int{2, 17, 25, 80} {
				if kind == "tls 1.2" && !kept && cut < handshakeRest {
					continue // it has a second, as if nothing had come
				}
				t.Run(fmt.Sprintf("%s, kept %v, %d bytes", kind, kept, cut), func(t *testing.T) {
					s := serve(t, kind, nil)
					if kept {
						s.write(request)
						s.answered()
					}
					s.write(request[:cut])
					s.begins()
					drained := s.drain(t.Context())
					if !s.holdsUp(time.Now().Add(-time.Hour)) {
						t.Error("the drain is not held up")
					}
					s.write(request[cut:])
					if !s.answered() {
						t.Error("the client is not told to go elsewhere")
					}
					if err := <-drained; err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// TestHalfRequestForever has the rest of a request never come: at the end it is cut and counted, if the server does not
// end it.
func TestHalfRequestForever(t *testing.T) {
	for _, kind := range kinds {
		s := serve(t, kind, nil)
		s.write(request[:80])
		s.begins()
		ctx, cancel := context.WithCancel(t.Context())
		drained := s.drain(ctx)
		cancel()
		if err := <-drained; !errors.Is(err, context.Canceled) || s.Open() != 1 {
			t.Errorf("%s: %v with %d open", kind, err, s.Open())
		}

		s = serve(t, kind, func(srv *http.Server) { srv.ReadHeaderTimeout = time.Second })
		s.write(request[:80])
		if err := <-s.drain(t.Context()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestNothingBegun wants no drain to be held up by a connection that has no request.
func TestNothingBegun(t *testing.T) {
	for _, kind := range kinds {
		s := serve(t, kind, nil)
		waitFor(t, kind+", fresh", func() bool { return s.Open() == 1 && !s.hasBegun() })
		s.write(request)
		s.answered()
		waitFor(t, kind+", idle", func() bool { return !s.holdsUp(time.Now().Add(-time.Hour)) })
	}
}

// TestSlowHandshake has a client say only a part of its ClientHello: a drain does not wait for it as for a request.
func TestSlowHandshake(t *testing.T) {
	s := serve(t, "tls 1.3", nil)
	s.client.Close()
	waitFor(t, "the end of the client", func() bool { return s.Open() == 0 })
	c, err := net.Dial("tcp", s.socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const part = 300
	hello := append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, make([]byte, part)...)
	c.Write(hello)
	waitFor(t, "what it says to be read", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.own.(*trackedTCP).some == len(hello)
		}
		return false
	})
	if begun := time.Now(); !s.holdsUp(begun) {
		t.Error("it is closed at once")
	}
	if s.hasBegun() || s.Unfinished() != 0 {
		t.Error("it is taken for a request")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := <-s.drain(ctx); err != nil {
		t.Error(err)
	}
}

// TestPipelinedCut hands over a connection of which the beginning of the next request came with the one before.
func TestPipelinedCut(t *testing.T) {
	const whole = "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, head := range []string{whole[:1], whole[:17], whole[:26], whole[:19]} {
		r := newRelay(t, "tcp", echoHandler(), nil)
		c, err := net.Dial("tcp", r.socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, request+head)
		if err := exchange(c, nil, "1:"); err != nil {
			t.Fatal(err)
		}
		s := &served{HTTP: r.current.Load().Mover.(*HTTP), t: t}
		s.begins()
		launched := make(chan struct{})
		go func() {
			defer close(launched)
			r.launch() // waits for the server before
		}()
		waitFor(t, "the drain", s.draining.Load)
		if err := exchange(c, []string{whole[len(head):]}, "2:"); err != nil {
			t.Errorf("%q: %v", head, err)
		}
		<-launched
		c.Close()
	}
}

// TestHandOverInHaste drains with hardly a delay: what is on its way must neither be closed nor go twice.
func TestHandOverInHaste(t *testing.T) {
	const clients = 500
	r := newRelay(t, "tcp", echoHandler(), nil)
	r.delay = time.Millisecond
	var conns []net.Conn
	for n := range clients {
		c, err := net.Dial("tcp", r.socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if err := relayRequests(c, 0, n); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		before := r.moved.Load()
		r.launch()
		for _, c := range conns {
			if err := relayRequests(c, 0, n); err != nil {
				t.Fatal(err)
			}
		}
		if moved := r.moved.Load() - before; moved != clients {
			t.Errorf("%d connections were handed over, of %d", moved, clients)
		}
	}
}

// TestArrivalIsIdle has a connection be idle after it was handed over for longer than a request's header may take,
// which then counts from its first byte.
func TestArrivalIsIdle(t *testing.T) {
	const headerTime = 200 * time.Millisecond
	r := newRelay(t, "tcp", echoHandler(), func(s *http.Server) {
		s.ReadHeaderTimeout, s.IdleTimeout = headerTime, time.Hour
	})
	c, err := net.Dial("tcp", r.socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := range 3 {
		if err := relayRequests(c, 0, n); err != nil {
			t.Fatal(err)
		}
		r.launch()
		s := &served{HTTP: r.current.Load().Mover.(*HTTP), t: t}
		waitFor(t, "its arrival", func() bool { return s.Open() == 1 })
		c.SetReadDeadline(time.Now().Add(2 * headerTime))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("while it is idle: %v; want it to stay open", err)
		}
	}
	r.launch() // once more, without a request
	if err := relayRequests(c, 0, 4); err != nil {
		t.Fatal(err)
	}
	r.launch()
	begun := time.Now()
	io.WriteString(c, request[:20])
	c.SetReadDeadline(begun.Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) < headerTime {
		t.Errorf("half a header: %v after %v", err, time.Since(begun))
	}
}

// TestArrivalIsRead has a connection be idle after it was handed over for longer than reading a request may take, which
// then counts from its first byte.
func TestArrivalIsRead(t *testing.T) {
	const readTime = 400 * time.Millisecond
	for _, headerTime := range []time.Duration{0, readTime / 2} {
		s := serve(t, "arrived", func(srv *http.Server) {
			srv.ReadTimeout, srv.ReadHeaderTimeout, srv.IdleTimeout = readTime, headerTime, time.Hour
		})
		waitFor(t, "its arrival", func() bool { return s.Open() == 1 })
		s.client.SetReadDeadline(time.Now().Add(readTime * 3 / 2))
		if _, err := s.reader.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("while it is idle: %v; want it to stay open", err)
		}
		s.client.SetReadDeadline(time.Now().Add(20 * time.Second))
		for range 2 { // the first counts as all that follow
			s.write("POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
			waitFor(t, "its handler, which reads the body", s.handles)
			s.write("foo")
			resp, err := http.ReadResponse(s.reader, nil)
			if err != nil {
				t.Fatalf("ReadHeaderTimeout %v: %v", headerTime, err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "1:foo" {
				t.Errorf("answered %q, %v", body, err)
			}
		}
	}
}

// TestArrivalIsDropped drains for good a server with a connection that has arrived and has nothing to say.
func TestArrivalIsDropped(t *testing.T) {
	s := serve(t, "arrived", nil)
	waitFor(t, "its arrival", func() bool { return s.Open() == 1 && !s.holdsUp(time.Now()) })
	begun := time.Now()
	if err := <-s.drain(t.Context()); err != nil || time.Since(begun) > 4*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

// TestArrivalIsGivenTime drains for good a server with a connection that has just arrived, and whose client's first
// request is on its way.
func TestArrivalIsGivenTime(t *testing.T) {
	h := NewHTTP(&http.Server{})
	c := track(nil, new(count)).(*trackedConn)
	c.own, c.state, c.arrived, c.since = c, idle, true, time.Now()
	h.conns[c.part()] = struct{}{}
	if begun := time.Now(); !h.holdsUp(begun) {
		t.Error("it is closed at once")
	}
	c.since = time.Now().Add(-newConnGrace)
	if h.holdsUp(time.Now().Add(-time.Millisecond)) {
		t.Error("it is waited for although nothing has come for long")
	}
	c.arrived, c.since, h.drainBegan = false, time.Now(), time.Now()
	if h.holdsUp(time.Now().Add(-time.Millisecond)) {
		t.Error("one that has been served, and is idle, is waited for")
	}
}

// TestHijackedIsForgotten wants a connection that was hijacked not to be followed any more, though an HTTP/2 server
// goes on telling of it.
func TestHijackedIsForgotten(t *testing.T) {
	h := NewHTTP(&http.Server{})
	own, other := net.Pipe()
	defer own.Close()
	defer other.Close()
	c := track(own, new(count))
	h.enter(c)
	h.observe(c, http.StateNew)
	for _, state := range []http.ConnState{http.StateActive, http.StateHijacked, http.StateActive, http.StateIdle} {
		h.observe(c, state)
	}
	if len(h.conns) > 0 {
		t.Error("it is")
	}
}
