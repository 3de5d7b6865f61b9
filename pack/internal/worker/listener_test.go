//go:build unix

package worker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

var anyPort = wire.Endpoint{Network: "tcp", Address: "127.0.0.1:0"}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// copyOf returns a listener of a copy of another's socket, as a worker gets it.
func copyOf(t *testing.T, l net.Listener) net.Listener {
	t.Helper()
	return test.CopyListener(t, l)
}

func quietListener(own net.Listener) *listener {
	return newListener(own, anyPort, slog.New(slog.DiscardHandler), func(bool) {})
}

// TestListenerFinishes wants all queues to be emptied, own and others', before the listener closes.
func TestListenerFinishes(t *testing.T) {
	n := &numbered{t: t, seen: map[uint32]bool{}}
	own, other := listen(t), listen(t)
	l := quietListener(copyOf(t, own))
	var dialing sync.WaitGroup
	for range 50 {
		dialing.Go(func() { n.dial(own.Addr().String()) })
		dialing.Go(func() { n.dial(other.Addr().String()) })
	}
	waitFor(t, func() bool { return readable(own) && readable(other) })
	answered := make(chan error, 1)
	if err := l.serve(copyOf(t, other), 0, true, func(err error) { answered <- err }); err != nil {
		t.Fatal(err)
	}
	l.finish(queueEmpty)
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		n.accept(c)
	}
	dialing.Wait()
	if err := <-answered; err != nil {
		t.Errorf("the other socket was not drained: %v", err)
	}
	if len(n.seen) != 100 {
		t.Errorf("%d of 100 connections were accepted", len(n.seen))
	}
}

// TestListenerStops wants a connection that was accepted elsewhere to be served although the listener is closed.
func TestListenerStops(t *testing.T) {
	own, other := listen(t), listen(t)
	l := quietListener(copyOf(t, own))
	answered := make(chan error, 1)
	if err := l.serve(copyOf(t, other), 7, true, func(err error) { answered <- err }); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", other.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	waitFor(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.queue) == 1
	})
	l.stop(nil)
	if err := <-answered; !errors.Is(err, errStopped) {
		t.Errorf("answered %v", err)
	}
	if got, err := l.Accept(); err != nil {
		t.Error(err)
	} else {
		got.Close()
	}
	for range 2 {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
	}
	if l.push(c, nil) {
		t.Error("a connection that is handed over is taken")
	}
	if err := l.serve(copyOf(t, other), 8, true, nil); !errors.Is(err, errStopped) {
		t.Errorf("serve: %v", err)
	}
}

// TestListenerInShortage has a connection arrive while Accept waits for descriptors.
func TestListenerInShortage(t *testing.T) {
	own := &shortOfFiles{Listener: listen(t), failed: make(chan struct{})}
	l := quietListener(own)
	defer l.Close()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		<-own.failed
		l.push(ours, nil)
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if delay := l.shortage.feel(syscall.EMFILE); delay > 4*shortageMin {
		t.Errorf("it waited: the next delay is %v", delay)
	}
}

// shortOfFiles is a socket from which nothing can be accepted.
type shortOfFiles struct {
	net.Listener
	broken atomic.Bool // off, by a deadline
	once   sync.Once
	failed chan struct{}
}

func (s *shortOfFiles) SetDeadline(t time.Time) error {
	s.broken.Store(!t.IsZero())
	return nil
}

func (s *shortOfFiles) Accept() (net.Conn, error) {
	if s.broken.Load() {
		return nil, os.ErrDeadlineExceeded
	}
	s.once.Do(func() { close(s.failed) })
	return nil, syscall.EMFILE
}

// TestListenerIsASocket wants what foreign servers look for.
func TestListenerIsASocket(t *testing.T) {
	own := listen(t)
	l := quietListener(own)
	defer l.Close()
	exposed := l.exposed()
	if exposed.Addr().String() != own.Addr().String() {
		t.Errorf("its address is %v", exposed.Addr())
	}
	rc, err := exposed.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Control(func(uintptr) {}); err != nil {
		t.Error(err)
	}
	if _, ok := quietListener(struct{ net.Listener }{own}).exposed().(syscall.Conn); ok {
		t.Error("SyscallConn of a socket that has none")
	}
}

// waitFor waits for what comes about by itself.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it does not come about")
		}
	}
}
