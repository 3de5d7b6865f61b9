//go:build linux

package drain

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// budget is a Load that says how many connections are to be handed over.
type budget struct{ left, movable atomic.Int64 }

func (b *budget) Open(int)         {}
func (b *budget) Served(uint64)    {}
func (b *budget) Movable(more int) { b.movable.Add(int64(more)) }

func (b *budget) Sheds() bool {
	for n := b.left.Load(); n > 0; n = b.left.Load() {
		if b.left.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}

func (b *budget) Stays() { b.left.Add(1) }

// neighbors are two servers in this process that hand connections over to each other. All come to the first.
type neighbors struct {
	*relay
	servers [2]*relayServer
	loads   [2]budget
}

func newNeighbors(t *testing.T, handler http.Handler, server func(*http.Server) Mover) *neighbors {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &neighbors{relay: &relay{t: t, handler: handler, server: server, socket: l}}
	for i := range n.servers {
		s := &relayServer{Mover: server(&http.Server{Handler: handler}), arrivals: newArrivals(l.Addr())}
		s.Prepare(Worker{Load: &n.loads[i]})
		n.servers[i] = s
	}
	for i, s := range n.servers {
		other := n.servers[1-i].arrivals
		pass := func(c syscall.Conn) error { return n.passTo(func(c net.Conn) { other.Deliver(c) }, c) }
		if i == 0 {
			s.serving.Go(func() { s.Serve(s.Movable(l, pass, new(atomic.Bool))) })
		}
		s.serving.Go(func() { s.Serve(s.Movable(s.arrivals, pass, new(atomic.Bool))) })
	}
	t.Cleanup(func() {
		l.Close()
		for _, s := range n.servers {
			s.arrivals.Close()
		}
		for _, s := range n.servers {
			s.serving.Wait()
			s.Close()
			s.Shutdown(context.Background())
		}
	})
	return n
}

// dial returns connections of which it is known that they are kept alive.
func (n *neighbors) dial(number int) (conns []net.Conn) {
	n.t.Helper()
	for range number {
		c, err := net.Dial("tcp", n.socket.Addr().String())
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { c.Close() })
		n.get(c, c)
		conns = append(conns, c)
	}
	return conns
}

// get sends a request on each connection in turn.
func (n *neighbors) get(conns ...net.Conn) {
	n.t.Helper()
	for _, c := range conns {
		if err := exchange(c, []string{"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"}, "2:"); err != nil {
			n.t.Fatal(err)
		}
	}
}

// askAgain asks for something again and again, as a master does, until it is done.
func askAgain(t *testing.T, what string, ask func(), done func() bool) {
	t.Helper()
	tries := 0
	waitFor(t, what, func() bool {
		if tries%100 == 0 {
			ask()
		}
		tries++
		return done()
	})
}

// TestShed has two servers hand connections of busy, pausing, posting and pipelining clients over to each other, while
// both serve. Nothing may be lost, and no client may have to connect again.
func TestShed(t *testing.T) {
	for name, server := range map[string]func(*http.Server) Mover{"ours": ours, "of others": theirs} {
		t.Run(name, func(t *testing.T) {
			n := newNeighbors(t, echoHandler(), server)
			const clients, rounds = 20, 50
			var done atomic.Bool
			var running sync.WaitGroup
			for i := range clients {
				c, err := net.Dial("tcp", n.socket.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				running.Go(func() {
					defer c.Close()
					for k := 0; !done.Load(); k++ {
						if err := relayRequests(c, i%5, k); err != nil {
							t.Errorf("client %d (kind %d), round %d: %v", i, i%5, k, err)
							return
						}
					}
				})
			}
			movable := func() int64 { return n.loads[0].movable.Load() + n.loads[1].movable.Load() }
			waitFor(t, "all connections to be known as kept alive", func() bool { return movable() == clients })
			for range rounds {
				before := n.moved.Load()
				askAgain(t, "a connection to be handed over", func() {
					from := 0
					if n.loads[1].movable.Load() > n.loads[0].movable.Load() {
						from = 1
					}
					n.loads[1-from].left.Store(0)
					n.loads[from].left.Store(clients / 2)
					n.servers[from].Shed(false)
				}, func() bool { return n.moved.Load() > before || t.Failed() })
			}
			for i, s := range n.servers {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				s.EndHandover(ctx)
				if ctx.Err() != nil {
					t.Errorf("handing over from server %d does not end", i)
				}
				cancel()
				n.loads[i].left.Store(clients)
				s.Shed(false)
			}
			moved := n.moved.Load()
			waitFor(t, "all connections to be somewhere", func() bool { return movable() == clients || t.Failed() })
			done.Store(true)
			running.Wait()
			if after := n.moved.Load(); after != moved {
				t.Errorf("%d connections were handed over after the end of that", after-moved)
			}
			waitFor(t, "no connection to be known", func() bool { return movable() == 0 })
			t.Logf("%d handed over", moved)
		})
	}
}

// TestShedNoMore has a server hand over one of several connections, and no more, whatever comes after.
func TestShedNoMore(t *testing.T) {
	for name, server := range map[string]func(*http.Server) Mover{"ours": ours, "of others": theirs} {
		t.Run(name, func(t *testing.T) {
			n := newNeighbors(t, echoHandler(), server)
			conns := n.dial(4)
			n.loads[0].left.Store(1)
			n.servers[0].Shed(false)
			n.get(conns...)
			waitFor(t, "a connection to be handed over", func() bool { return n.loads[1].movable.Load() == 1 })
			for range 10 {
				n.get(conns...)
			}
			if moved, left := n.moved.Load(), n.loads[0].left.Load(); moved != 1 || left != 0 {
				t.Errorf("%d were handed over, and %d are to be", moved, left)
			}
		})
	}
}

// TestShedKeepsBusy has a server hand over all but the connection for which it works, also when that is idle again.
func TestShedKeepsBusy(t *testing.T) {
	for name, server := range map[string]func(*http.Server) Mover{"ours": ours, "of others": theirs} {
		t.Run(name, func(t *testing.T) {
			begun, end := make(chan struct{}), make(chan struct{})
			n := newNeighbors(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/1" && r.Method == http.MethodPost {
					begun <- struct{}{}
					<-end
				}
				echoHandler().ServeHTTP(w, r)
			}), server)
			conns := n.dial(3)
			busy := make(chan error)
			go func() {
				busy <- exchange(conns[0], []string{"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"}, "1:")
			}()
			<-begun
			askAgain(t, "the others to be handed over", func() {
				n.loads[0].left.Store(10)
				n.servers[0].Shed(true)
			}, func() bool { return n.loads[1].movable.Load() == 2 })
			end <- struct{}{}
			if err := <-busy; err != nil {
				t.Fatal(err)
			}
			n.get(conns...)
			if got := n.moved.Load(); got != 2 {
				t.Errorf("%d connections were handed over; want 2", got)
			}
			askAgain(t, "all to be handed over", func() {
				n.servers[0].Shed(false)
			}, func() bool { return n.loads[1].movable.Load() == 3 })
			n.get(conns...)
		})
	}
}
