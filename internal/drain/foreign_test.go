//go:build linux

package drain

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// stranger is a server that somebody else wrote.
type stranger struct {
	net.Listener
	shutdown func(context.Context) error
	accepted chan net.Conn
}

func (s *stranger) Serve(l net.Listener) error {
	s.Listener = l
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		s.accepted <- c
	}
}

func (s *stranger) Shutdown(ctx context.Context) error { return s.shutdown(ctx) }
func (s *stranger) Close() error                       { return nil }

// graceful is one that tells its clients to go elsewhere.
type graceful struct{ *stranger }

func (graceful) GracefulStop() {}

// strange has a server serve that somebody else wrote, with one connection.
func strange(t *testing.T, s *stranger, wrapped Server) (accepted net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.accepted = make(chan net.Conn)
	ended := make(chan error)
	go func() { ended <- wrapped.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	accepted = <-s.accepted
	t.Cleanup(func() { accepted.Close() })
	l.Close()
	<-ended
	return accepted
}

// TestForeignIsWaitedFor has a server's Shutdown return at once although it serves a connection.
func TestForeignIsWaitedFor(t *testing.T) {
	s := &stranger{shutdown: func(context.Context) error { return nil }}
	f := Foreign(s)
	c := strange(t, s, f)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Shutdown(ctx); !errors.Is(err, context.Canceled) || f.Open() != 1 {
		t.Errorf("%v with %d open", err, f.Open())
	}
	drained := make(chan error)
	go func() { drained <- f.Shutdown(t.Context()) }()
	select {
	case err := <-drained:
		t.Errorf("Shutdown does not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
		c.Close()
		if err := <-drained; err != nil || f.Open() != 0 {
			t.Errorf("%v with %d open", err, f.Open())
		}
	}
	s.shutdown = func(context.Context) error { return io.ErrClosedPipe }
	if err := f.Shutdown(t.Context()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("its own error is %v", err)
	}
}

// TestForeignDelay wants connections to have the delay to themselves, unless the server tells its clients to go
// elsewhere.
func TestForeignDelay(t *testing.T) {
	called := make(chan struct{}, 1)
	s := &stranger{shutdown: func(context.Context) error { called <- struct{}{}; return nil }}
	f := Foreign(s)
	c := strange(t, s, f)
	f.BeginDrain(time.Hour, false)
	drained := make(chan error)
	go func() { drained <- f.Shutdown(t.Context()) }()
	select {
	case <-called:
		t.Error("Shutdown is called at once")
	case <-time.After(20 * time.Millisecond):
	}
	c.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	<-called

	f = Foreign(graceful{s})
	c = strange(t, s, f)
	f.BeginDrain(time.Hour, false) // there is nowhere else to go
	go func() { drained <- f.Shutdown(t.Context()) }()
	select {
	case <-called:
		t.Error("Shutdown is called at once, and nobody else serves")
	case <-time.After(20 * time.Millisecond):
	}
	c.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	<-called

	f = Foreign(graceful{s})
	c = strange(t, s, f)
	f.BeginDrain(time.Hour, true)
	go func() { drained <- f.Shutdown(t.Context()) }()
	<-called
	c.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestForeignSeesASocket wants the listener to offer what its socket does.
func TestForeignSeesASocket(t *testing.T) {
	s := &stranger{}
	strange(t, s, Foreign(s))
	if _, ok := s.Listener.(syscall.Conn); !ok {
		t.Error("its listener has no SyscallConn")
	}
}

// slowToBegin is a server that does nothing with a connection until it is told to, and closes one of which it finds
// then that it is to stop, as grpc does.
type slowToBegin struct {
	begin    chan struct{}
	stopping atomic.Bool
	cut      atomic.Int64
}

func (s *slowToBegin) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			<-s.begin
			if s.stopping.Load() {
				s.cut.Add(1)
				return
			}
			c.SetDeadline(time.Now().Add(time.Minute))
			io.Copy(c, c)
		}()
	}
}

func (s *slowToBegin) Shutdown(context.Context) error {
	s.stopping.Store(true)
	return nil
}

func (s *slowToBegin) Close() error { return nil }

// servedAt has a server serve, with one client.
func servedAt(t *testing.T, s Server) (l net.Listener, client net.Conn, served <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return l, c, ended
}

// TestForeignIsGivenTime has a connection accepted that its server has not begun to look after when the drain begins.
func TestForeignIsGivenTime(t *testing.T) {
	own := &slowToBegin{begin: make(chan struct{})}
	s := Foreign(own)
	l, c, served := servedAt(t, s)
	waitFor(t, "the connection", func() bool { return s.Open() == 1 })
	l.Close()
	<-served
	s.BeginDrain(0, false)
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	close(own.begin)
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil || own.cut.Load() != 0 {
		t.Errorf("%v, %d connections were cut; want an answer", err, own.cut.Load())
	}
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// cutter is a server that cuts its connections when Accept fails, as redcon does. It answers each line, when told to.
type cutter struct {
	proceed chan struct{}

	mu    sync.Mutex
	conns []net.Conn
}

func (s *cutter) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		s.mu.Lock()
		if err != nil {
			for _, c := range s.conns {
				c.Close()
			}
			s.mu.Unlock()
			return err
		}
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		go func() {
			defer c.Close()
			for r := bufio.NewReader(c); ; {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				<-s.proceed
				io.WriteString(c, line)
			}
		}()
	}
}

func (s *cutter) Shutdown(context.Context) error { return nil }
func (s *cutter) Close() error                   { return nil }

// TestForeignAnswersFirst has a server owe an answer when its drain begins.
func TestForeignAnswersFirst(t *testing.T) {
	own := &cutter{proceed: make(chan struct{})}
	s := Foreign(own)
	l, c, served := servedAt(t, s)
	ask := func() { io.WriteString(c, "x\n") }
	answered := func() error {
		_, err := io.ReadFull(c, make([]byte, 2))
		return err
	}
	ask()
	own.proceed <- struct{}{}
	if err := answered(); err != nil {
		t.Fatal(err)
	}
	ask()
	own.proceed <- struct{}{}
	if err := answered(); err != nil {
		t.Fatal(err)
	}
	ask()
	waitFor(t, "the request", func() bool { return s.(*foreign).number((*guest).isAsked) == 1 })
	l.Close()
	<-served
	s.BeginDrain(0, false)
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(expired); !errors.Is(err, context.Canceled) || s.Open() != 1 {
		t.Errorf("when there is no time it says %v, with %d connections; want that it is not done, with 1", err, s.Open())
	}
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	own.proceed <- struct{}{}
	if err := answered(); err != nil {
		t.Errorf("no answer: %v", err)
	}
	if err := <-done; err != nil || s.Open() != 0 {
		t.Errorf("%v with %d connections", err, s.Open())
	}
}

// TestArrivalMayBeIdle has a connection arrive at a server that gives a new one little time.
func TestArrivalMayBeIdle(t *testing.T) {
	f := Foreign(&stranger{}).(*foreign)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	socket, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := f.enter(Arrived(socket), newDoor(l, f))
	defer c.Close()
	const little = 10 * time.Millisecond
	c.SetReadDeadline(time.Now().Add(little))
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 10))
		read <- err
	}()
	select {
	case err := <-read:
		t.Errorf("while it is idle: %v", err)
	case <-time.After(3 * little):
		io.WriteString(client, "G")
		if err := <-read; err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("when a request has begun: %v; want that the time is over", err)
	}
}

// TestGuestKeepsFastPaths wants what servers look for in a connection.
func TestGuestKeepsFastPaths(t *testing.T) {
	var c net.Conn = (&guest{socket: &net.TCPConn{}}).conn()
	if _, ok := c.(io.ReaderFrom); !ok {
		t.Error("no ReadFrom: no sendfile")
	}
	for _, c := range []net.Conn{c, (&guest{socket: &net.UnixConn{}}).conn()} {
		if _, ok := c.(syscall.Conn); !ok {
			t.Error("no SyscallConn")
		}
		if _, ok := c.(interface{ CloseWrite() error }); !ok {
			t.Error("no CloseWrite")
		}
	}
	if _, ok := c.(interface{ SetNoDelay(bool) error }); !ok {
		t.Error("no SetNoDelay")
	}
}
