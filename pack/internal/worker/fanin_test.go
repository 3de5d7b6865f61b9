//go:build unix

package worker

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
