//go:build linux

package drain

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// relay is a row of HTTP servers in this process, each of which hands its connections over to the next.
type relay struct {
	t       *testing.T
	handler http.Handler
	tune    func(*http.Server)
	server  func(*http.Server) Mover
	socket  net.Listener
	delay   time.Duration // of a drain; 0 is 5 s

	current atomic.Pointer[relayServer]
	moved   atomic.Int64
}

type relayServer struct {
	Mover
	copied   net.Listener // its copy of the socket
	arrivals *arrivals
	serving  sync.WaitGroup
}

func newRelay(t *testing.T, network string, handler http.Handler, tune func(*http.Server)) *relay {
	t.Helper()
	return newRelayOf(t, network, handler, tune, ours)
}

func ours(srv *http.Server) Mover { return NewHTTP(srv) }

// theirs makes of an http.Server one of which nothing is known.
func theirs(srv *http.Server) Mover { return Foreign(&hiddenHTTP{srv}).(Mover) }

type hiddenHTTP struct{ srv *http.Server }

func (h *hiddenHTTP) Serve(l net.Listener) error         { return h.srv.Serve(l) }
func (h *hiddenHTTP) Shutdown(ctx context.Context) error { return h.srv.Shutdown(ctx) }
func (h *hiddenHTTP) Close() error                       { return h.srv.Close() }

func newRelayOf(t *testing.T, network string, handler http.Handler, tune func(*http.Server),
	server func(*http.Server) Mover) *relay {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, handler: handler, tune: tune, server: server, socket: l}
	r.launch()
	t.Cleanup(func() {
		l.Close()
		s := r.current.Load()
		s.arrivals.Close()
		s.copied.Close()
		s.serving.Wait()
		s.Close()
		s.Shutdown(context.Background())
	})
	return r
}

// launch starts the next server on the socket.
func (r *relay) launch() {
	srv := &http.Server{Handler: r.handler}
	if r.tune != nil {
		r.tune(srv)
	}
	copied := test.CopyListener(r.t, r.socket)
	s := &relayServer{Mover: r.server(srv), copied: copied, arrivals: newArrivals(r.socket.Addr())}
	s.serving.Go(func() { s.Serve(s.Movable(copied, r.pass, new(atomic.Bool))) })
	s.serving.Go(func() { s.Serve(s.Movable(s.arrivals, r.pass, new(atomic.Bool))) })
	old := r.current.Swap(s)
	if old == nil {
		return
	}
	old.BeginDrain(cmp.Or(r.delay, 5*time.Second), true)
	old.arrivals.Close()
	old.copied.Close()
	old.serving.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := old.Shutdown(ctx); err != nil {
		r.t.Errorf("Shutdown: %v", err)
	}
}

// pass is what the control sockets and the master do between processes.
func (r *relay) pass(c syscall.Conn) error {
	return r.passTo(func(c net.Conn) {
		for !r.current.Load().arrivals.Deliver(c) {
		}
	}, c)
}

func (r *relay) passTo(deliver func(net.Conn), c syscall.Conn) error {
	r.moved.Add(1)
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var f *os.File
	rc.Control(func(fd uintptr) {
		var dup int
		if dup, err = syscall.Dup(int(fd)); err == nil {
			syscall.CloseOnExec(dup)
			f = os.NewFile(uintptr(dup), "conn")
		}
	})
	if err != nil {
		return err
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return err
	}
	deliver(conn)
	return nil
}

// arrivals is a listener whose connections come from another worker.
type arrivals struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

// newArrivals returns a listener with the address of the socket at which the connections were accepted.
func newArrivals(addr net.Addr) *arrivals {
	return &arrivals{conns: make(chan net.Conn), closed: make(chan struct{}), addr: addr}
}

// Accept waits for a connection that is delivered, or for Close.
func (a *arrivals) Accept() (net.Conn, error) {
	select {
	case c := <-a.conns:
		return c, nil
	case <-a.closed:
		return nil, net.ErrClosed
	}
}

// Deliver has Accept return a connection, and reports whether it will.
func (a *arrivals) Deliver(c net.Conn) bool {
	select {
	case a.conns <- Arrived(c):
		return true
	case <-a.closed:
		return false
	}
}

// Close ends Accept and Deliver.
func (a *arrivals) Close() error {
	a.once.Do(func() { close(a.closed) })
	return nil
}

// Addr returns the address of the socket.
func (a *arrivals) Addr() net.Addr { return a.addr }

func echoHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "%s:%s", r.URL.Path[1:], body)
	})
}

// TestHandOver moves busy, pausing, posting and pipelining clients through many servers. Nothing may be lost, and no
// client may have to connect again.
func TestHandOver(t *testing.T) {
	for _, tt := range []struct {
		name, network string
		server        func(*http.Server) Mover
	}{
		{"tcp", "tcp", ours}, {"unix", "unix", ours}, {"of others", "tcp", theirs}, {"of others, unix", "unix", theirs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			network := tt.network
			r := newRelayOf(t, network, echoHandler(), nil, tt.server)
			const clients, servers = 40, 50
			var done atomic.Bool
			var requests atomic.Int64
			var running sync.WaitGroup
			for i := range clients {
				c, err := net.Dial(network, r.socket.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				running.Go(func() {
					defer c.Close()
					for n := 0; !done.Load(); n++ {
						if err := relayRequests(c, i%5, n); err != nil {
							t.Errorf("client %d (kind %d), round %d: %v", i, i%5, n, err)
							return
						}
						requests.Add(1)
					}
				})
			}
			for range servers {
				before := requests.Load()
				r.launch()
				waitFor(t, "a round of all clients", func() bool { return requests.Load() >= before+clients || t.Failed() })
			}
			done.Store(true)
			running.Wait()
			t.Logf("%d rounds on %d connections, %d handed over", requests.Load(), clients, r.moved.Load())
			if r.moved.Load() < clients*servers/2 {
				t.Errorf("only %d connections were handed over", r.moved.Load())
			}
		})
	}
}

// relayRequests is one round of a client.
func relayRequests(c net.Conn, kind, n int) error {
	get := fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", n)
	switch kind {
	case 0: // one after the other
		return exchange(c, []string{get}, fmt.Sprintf("%d:", n))
	case 1: // pausing
		time.Sleep(time.Duration(rand.N(5)) * time.Millisecond)
		return exchange(c, []string{get}, fmt.Sprintf("%d:", n))
	case 2: // posting, in pieces
		body := strings.Repeat("b", 6000)
		post := fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", n, len(body))
		return exchange(c, []string{post[:10], post[10:], body[:3000], body[3000:]}, fmt.Sprintf("%d:%s", n, body))
	case 3: // line by line
		return exchange(c, strings.SplitAfter(get, "\n"), fmt.Sprintf("%d:", n))
	default: // pipelining, with the beginning of the next request behind
		want := fmt.Sprintf("%d:", n)
		return exchange(c, []string{get + get + get[:2], get[2:7], get[7:]}, want, want, want)
	}
}

// exchange writes pieces, with a little time between them, and reads the answers.
func exchange(c net.Conn, pieces []string, want ...string) error {
	for i, piece := range pieces {
		if i > 0 {
			time.Sleep(time.Duration(rand.N(1000)) * time.Microsecond)
		}
		if _, err := io.WriteString(c, piece); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	reader := bufio.NewReader(c)
	for i, w := range want {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return fmt.Errorf("answer %d: %w", i, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != w {
			return fmt.Errorf("answer %d: %.50q, %w; want %.50q", i, body, err, w)
		}
		if resp.Close {
			return fmt.Errorf("answer %d asks to close", i)
		}
	}
	if reader.Buffered() > 0 {
		return fmt.Errorf("%d bytes too many", reader.Buffered())
	}
	return nil
}

// TestHandOverKeepsIdleTimeout has the server close a connection that was handed over and stays idle.
func TestHandOverKeepsIdleTimeout(t *testing.T) {
	r := newRelay(t, "tcp", echoHandler(), func(s *http.Server) { s.IdleTimeout = 300 * time.Millisecond })
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
	}
	if err := relayRequests(c, 0, 9); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%d, %v; want the server to close it", n, err)
	}
}

// TestHijackedIsLeftAlone takes a connection out of net/http, and has it used while its server drains.
func TestHijackedIsLeftAlone(t *testing.T) {
	hijacked := make(chan struct{})
	proceed := make(chan struct{})
	finished := make(chan error, 1)
	r := newRelay(t, "tcp", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			finished <- err
			return
		}
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n\r\n")
		rw.Flush()
		close(hijacked)
		<-proceed
		_, err = io.Copy(c, c) // by WriteTo and ReadFrom
		c.Close()
		finished <- err
	}), nil)
	c, err := net.Dial("tcp", r.socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-hijacked
	launched := make(chan struct{})
	go func() {
		defer close(launched)
		r.launch() // the server before waits for the hijacked connection
	}()
	close(proceed)
	reader := bufio.NewReader(c)
	if _, err := http.ReadResponse(reader, nil); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		io.WriteString(c, "ping\n")
		if line, err := reader.ReadString('\n'); line != "ping\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	c.(*net.TCPConn).CloseWrite()
	if err := <-finished; err != nil {
		t.Error(err)
	}
	<-launched
	if r.moved.Load() != 0 {
		t.Error("the connection was handed over")
	}
}

// TestMovableKeepsFastPaths wants what net and net/http look for in a connection.
func TestMovableKeepsFastPaths(t *testing.T) {
	var c net.Conn = &movableTCP{}
	if _, ok := c.(io.ReaderFrom); !ok {
		t.Error("no ReadFrom: no sendfile")
	}
	if _, ok := c.(syscall.Conn); !ok {
		t.Error("no SyscallConn")
	}
	if _, ok := c.(interface{ CloseWrite() error }); !ok {
		t.Error("no CloseWrite")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []byte)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		got <- b
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	m := movableListener{conns: new(count), bound: new(atomic.Bool)}.wrap(raw)
	buffers := net.Buffers{[]byte("one "), []byte("two "), []byte("three")}
	if n, err := buffers.WriteTo(m); n != 13 || err != nil {
		t.Errorf("writev: %d, %v", n, err)
	}
	m.Close()
	if b := <-got; !bytes.Equal(b, []byte("one two three")) {
		t.Errorf("%q", b)
	}
}
