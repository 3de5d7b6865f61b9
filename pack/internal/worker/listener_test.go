//go:build unix

package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	own, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return own
}

func quietListener(own net.Listener) *listener {
	return newListener(own, anyPort, slog.New(slog.DiscardHandler), func(bool) {})
}

// numbered is connections, each of which sends its number, to be ticked off by whoever accepts it.
type numbered struct {
	t    *testing.T
	mu   sync.Mutex
	seen map[uint32]bool
	made atomic.Uint32
}

// dial connects, and waits until the connection was accepted and closed.
func (n *numbered) dial(addr string) {
	number := n.made.Add(1)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		n.t.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Write(binary.BigEndian.AppendUint32(nil, number))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		n.t.Errorf("connection %d to %s: %v", number, addr, err)
	}
}

func (n *numbered) accept(c net.Conn) {
	defer c.Close()
	var b [4]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		n.t.Error(err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	number := binary.BigEndian.Uint32(b[:])
	if n.seen[number] {
		n.t.Errorf("connection %d came twice", number)
	}
	n.seen[number] = true
}

// TestListenerLosesNothing has several goroutines accept from a listener to which connections come from its own socket,
// from those of others, which come and go, and by handover. All must be accepted, and none may wait for another.
func TestListenerLosesNothing(t *testing.T) {
	for _, accepters := range []int{1, 3} {
		n := &numbered{t: t, seen: map[uint32]bool{}}
		own, others := listen(t), []net.Listener{listen(t), listen(t)}
		l := quietListener(copyOf(t, own))
		var serving sync.WaitGroup
		for range accepters {
			serving.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Error(err)
						}
						return
					}
					n.accept(c) // in line: the next Accept comes late
				}
			})
		}
		var dialing sync.WaitGroup
		for range 300 {
			dialing.Go(func() { n.dial(own.Addr().String()) })
			for _, other := range others {
				dialing.Go(func() { n.dial(other.Addr().String()) })
			}
			dialing.Go(func() { n.handOver(l) })
		}
		ended := make(chan struct{})
		var covering sync.WaitGroup
		for i, other := range others {
			covering.Go(func() {
				for {
					if err := l.serve(copyOf(t, other), i, false, func(error) {}); err != nil {
						t.Error(err)
					}
					select {
					case <-time.After(time.Millisecond):
						l.unserve(i)
					case <-ended:
						return
					}
				}
			})
		}
		dialing.Wait()
		close(ended)
		covering.Wait()
		l.finish(queueEmpty)
		l.unserve(0)
		l.unserve(1)
		serving.Wait()
		if left := l.left(); len(left) > 0 {
			t.Errorf("%d connections are left", len(left))
		}
		if made := n.made.Load(); int(made) != len(n.seen) {
			t.Errorf("%d of %d connections were accepted", len(n.seen), made)
		}
	}
}

// handOver has a connection arrive that another worker accepted.
func (n *numbered) handOver(l *listener) {
	accepted := listen(n.t)
	var dialing sync.WaitGroup
	dialing.Go(func() { n.dial(accepted.Addr().String()) })
	c, err := accepted.Accept()
	if err != nil {
		n.t.Error(err)
	} else if !l.push(c, nil) {
		n.t.Error("it was not taken")
	}
	dialing.Wait()
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
