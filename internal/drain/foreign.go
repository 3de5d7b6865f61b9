package drain

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// serverOfOthers is the part of Server that somebody else's server has.
type serverOfOthers interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// Foreign makes a Server of one that somebody else wrote: its own Shutdown drains it, when that loses nothing any more.
// Until then idle plaintext HTTP/1.1 connections of it are handed over. What is a Server already stays as it is.
func Foreign(s serverOfOthers) Server {
	if s, ok := s.(Server); ok {
		return s
	}
	_, tells := s.(interface{ GracefulStop() })
	_, begin := s.(clientsBegin)
	return &foreign{serverOfOthers: s, tells: tells, begin: begin, guests: map[*guest]struct{}{}}
}

// clientsBegin is what a server of others has if its clients speak first.
type clientsBegin interface{ ClientsBegin() }

type foreign struct {
	serverOfOthers
	tells   bool // it tells its clients to go elsewhere, as gRPC does
	begin   bool // its clients speak first
	conns   count
	delay   time.Duration // before its Shutdown
	moving  atomic.Bool   // idle connections are handed over
	staying atomic.Bool   // and not any more
	serving sync.WaitGroup

	// draining is set when clients that speak plaintext HTTP/1.1, and stay, are told that the next response is the last.
	draining atomic.Bool
	// lastOrders is set when no further requests are read from plaintext HTTP/1.1 connections.
	lastOrders atomic.Bool

	mu     sync.Mutex
	guests map[*guest]struct{}
	doors  []*door
}

func (f *foreign) Prepare(w Worker) { f.conns.load = w.Load }
func (f *foreign) Open() int        { return f.conns.open() }

// Unfinished implements Server.
func (f *foreign) Unfinished() int {
	return f.number(func(g *guest) bool { return !g.isBetween() })
}

// ClientsBegin implements Server. Others may greet.
func (f *foreign) ClientsBegin() bool { return f.begin }

// CanMove implements Mover.
func (f *foreign) CanMove() bool { return !f.tells }

// Movable implements Mover.
func (f *foreign) Movable(l net.Listener, pass func(syscall.Conn) error, bound *atomic.Bool) net.Listener {
	return passing{l, pass, bound}
}

func (f *foreign) handsOver() bool { return f.moving.Load() && !f.staying.Load() }

// Serve returns when the listener is closed. The server's own Serve does not learn of that before Shutdown.
func (f *foreign) Serve(l net.Listener) error {
	if e := Embedded(f.serverOfOthers); e.Server != nil && e.Serves && wantsTLS(e.TLSConfig) {
		return fmt.Errorf("the Serve of %T is that of the http.Server in it, which serves no TLS although there is a "+
			"TLSConfig: pass that http.Server itself, or by pack.Func a function that serves TLS", f.serverOfOthers)
	}
	d := newDoor(l, f)
	f.mu.Lock()
	f.doors = append(f.doors, d)
	f.mu.Unlock()
	ended := make(chan error, 1)
	f.serving.Go(func() { ended <- f.serverOfOthers.Serve(d.exposed()) })
	select {
	case err := <-ended:
		return err
	case <-d.closed:
		return net.ErrClosed
	}
}

// enter makes a guest of a connection.
func (f *foreign) enter(c net.Conn, d *door) net.Conn {
	a, hasArrived := c.(arrived)
	if hasArrived {
		c = a.Conn
	}
	g := &guest{socket: c, house: f, bound: d.bound, arrived: hasArrived, answered: hasArrived}
	g.framing.known = hasArrived
	if _, ok := c.(descriptorConn); ok {
		g.pass = d.pass
	}
	f.conns.add(1)
	if hasArrived {
		g.mu.Lock()
		g.keep(true)
		g.mu.Unlock()
	}
	f.mu.Lock()
	f.guests[g] = struct{}{}
	f.mu.Unlock()
	return g.conn()
}

func (f *foreign) leave(g *guest) {
	g.mu.Lock()
	g.keep(false)
	g.mu.Unlock()
	f.mu.Lock()
	delete(f.guests, g)
	f.mu.Unlock()
	f.conns.add(-1)
}

// BeginDrain leaves connections alone for the delay: nobody knows which of them are idle, and Shutdown may close those.
// A server that tells its clients to go elsewhere, as gRPC does, needs none, if there is an elsewhere. If there is an
// http.Server in it, what was registered with that is called now, not after the delay.
func (f *foreign) BeginDrain(delay time.Duration, handOver bool) {
	if e := Embedded(f.serverOfOthers); e.Server != nil {
		callHooks(e.Server)
	}
	if !f.tells || !handOver {
		f.delay = delay
	}
	f.moving.Store(handOver && !f.tells)
	f.draining.Store(true)
}

// Shed implements Mover.
func (f *foreign) Shed(keepBusy bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for g := range f.guests {
		g.consider(keepBusy)
	}
}

// EndHandover implements Mover.
func (f *foreign) EndHandover(ctx context.Context) {
	f.staying.Store(true)
	waitForNone(ctx, func() int { return f.number((*guest).stay) })
}

// quietGrace is how long a drain waits, when every client that waited for an answer has got one, for a moment in which
// no client waits. Where they are many, and busy, there is none.
const quietGrace = time.Second

// awaitAnswers waits until every client that waits for an answer has got it, whatever it asks for then.
func (f *foreign) awaitAnswers(ctx context.Context) error {
	waiting := f.asked()
	return waitForNone(ctx, func() int {
		now := f.asked()
		maps.DeleteFunc(waiting, func(g *guest, _ struct{}) bool { _, still := now[g]; return !still })
		return len(waiting)
	})
}

// asked returns the connections whose clients wait for answers.
func (f *foreign) asked() map[*guest]struct{} {
	all := map[*guest]struct{}{}
	f.number(func(g *guest) bool {
		if g.isAsked() {
			all[g] = struct{}{}
		}
		return false
	})
	return all
}

// number returns of how many connections something is so.
func (f *foreign) number(is func(*guest) bool) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for g := range f.guests {
		if is(g) {
			n++
		}
	}
	return n
}

// Shutdown is the server's own, after connections were handed over, or given the time to end by themselves, and answers
// that clients wait for were given. Not every Shutdown waits for the connections, and so this does.
func (f *foreign) Shutdown(ctx context.Context) error {
	f.number((*guest).sendOff)
	alone, cancel := context.WithTimeout(ctx, f.delay)
	defer cancel()
	f.conns.wait(alone)
	if err := f.awaitAnswers(ctx); err != nil { // to requests of before the drain, whose clients are not told
		return err
	}
	// A connection may be on its way from Accept to where the server looks after it: grpc closes one of which it finds
	// then that it is to stop.
	begun, cancel := context.WithTimeout(ctx, newConnGrace)
	defer cancel()
	waitForNone(begun, func() int { return f.number(func(g *guest) bool { return g.isFresh() || g.isUntold() }) })
	f.lastOrders.Store(true)
	f.number((*guest).sendOff)
	if err := f.awaitAnswers(ctx); err != nil {
		return err
	}
	quiet, cancel := context.WithTimeout(ctx, quietGrace)
	defer cancel()
	waitForNone(quiet, func() int { return len(f.asked()) })
	if err := f.end(ctx); err != nil {
		return err
	}
	return f.conns.wait(ctx)
}

// end calls the server's own Shutdown, while it still accepts, though nobody connects any more: when their Serve has
// returned, some take Shutdown for nothing, and others cut their connections. Most close the listener in it; for those
// that wait in it for Serve to return, and do not, Accept fails after a while. Not every Shutdown minds its context.
func (f *foreign) end(ctx context.Context) error {
	if ctx.Err() != nil {
		f.release()
		return context.Cause(ctx)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.serverOfOthers.Shutdown(ctx) }()
	limit := time.NewTimer(newConnGrace)
	defer limit.Stop()
	for release := limit.C; ; release = nil {
		select {
		case err := <-ended:
			f.endServe(ctx)
			return err
		case <-release:
			f.release()
		case <-ctx.Done():
			f.release()
			return context.Cause(ctx)
		}
	}
}

// release has Accept fail.
func (f *foreign) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.doors {
		d.release()
	}
}

// endServe has the server's own Serve return. It does not wait for long for one that does not take notice.
func (f *foreign) endServe(ctx context.Context) {
	f.release()
	done := make(chan struct{})
	go func() { f.serving.Wait(); close(done) }()
	limit := time.NewTimer(newConnGrace)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	case <-ctx.Done():
	}
}
