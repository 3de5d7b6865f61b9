package worker

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

// queueEmpty is how long a queue must stay empty to count as empty: a handshake may be under way. queueLimit is
// how long that may take where new connections cannot be kept out.
// orphanLimit is how long the queues may keep the sockets open when the master is gone.
const (
	queueEmpty  = 20 * time.Millisecond
	queueLimit  = time.Second
	orphanLimit = 3 * time.Second
)

// drainOptions is how a service is drained.
type drainOptions struct {
	// quiesce is set if nobody takes over the sockets, so that what is queued on them must be served before
	// they are closed. It keeps new connections out, or says why it cannot.
	quiesce func() error
	// takenOver is set if other workers go on serving what this one did, and handOver if they take its idle
	// connections.
	takenOver, handOver bool
	// unserved are endpoints that others do not go on serving all the same. quiesceUnserved keeps new connections out, if
	// that can be.
	unserved        []wire.Endpoint
	quiesceUnserved func() error
	// failed is why the worker drains that was not told to; nil if it was.
	failed error
	// closed, if set, is called when the sockets are closed.
	closed func()
	// orphaned is set if the master is gone: the sockets are closed at once, before the hook is called, since somebody may
	// wait for the address, to start the pack anew.
	orphaned bool
}

// drain stops accepting and finishes what is there until ctx ends, then cuts the rest and returns how many
// connections that were.
func (s *service) drain(ctx context.Context, o drainOptions) (cut int) {
	if s.OnShutdown != nil && !o.orphaned {
		s.OnShutdown(ctx)
	}
	if s.BeginDrain != nil {
		s.BeginDrain()
	}
	for _, e := range o.unserved {
		s.boundTo(e).Store(true)
	}
	for server := range s.servers() {
		server.BeginDrain(s.drainDelay(o.takenOver), o.handOver)
	}
	packetsStop := s.closeListeners(ctx, o)
	var total atomic.Int64
	total.Add(int64(s.disposeOfLeft(o)))
	if o.closed != nil {
		o.closed()
	}
	if s.OnShutdown != nil && o.orphaned {
		s.OnShutdown(ctx)
	}
	var stopping sync.WaitGroup
	for server, e := range s.servers() {
		stopping.Go(func() {
			if err := server.Shutdown(ctx); err != nil {
				left := server.Unfinished()
				total.Add(int64(left))
				s.log.Warn("a server did not finish in its drain",
					"endpoint", e.String(), "error", err, "connections", left)
				server.Close()
			}
		})
	}
	stopping.Wait()
	packetsStop()
	return int(total.Load())
}

// closeListeners closes the listeners, after what is queued on them was accepted if nobody takes over, and waits until
// every Serve has returned. Likewise it has what is queued on packet sockets read, and their servers stop; it returns
// what waits for these.
func (s *service) closeListeners(ctx context.Context, o drainOptions) (packetsStop func()) {
	half := s.ShutdownTimeout / 2 // a server that does not accept now must not take all of it
	limit := half
	all, last, packets := s.all(), s.last(&o), s.lastPackets(&o)
	deferred := endDefer(last)
	// What is unserved of packets nobody has to be kept out of: the kernel chooses others, or drops what comes.
	err := o.keepOut(len(last) > 0 || len(packets) > 0 && o.quiesce != nil)
	if err != nil {
		s.log.Debug("new connections cannot be kept out", "error", err)
	}
	if err != nil || o.quiesce == nil {
		limit = min(limit, queueLimit)
	}
	if o.orphaned {
		limit = min(limit, orphanLimit)
	}
	for _, l := range all {
		if !slices.Contains(last, l) {
			l.stop(o.failed)
		}
	}
	deferred.Await(ctx, half)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, l := range last {
		l.finish(queueEmpty)
	}
	emptied(limited, packets)
	packetsStop = s.stopPackets(ctx, o)
	waitForListeners(limited, last)
	for _, l := range all {
		l.stop(o.failed)
	}
	s.waitForServe(ctx)
	for _, l := range all {
		l.answers.Wait() // the sources are stopped
	}
	return packetsStop
}

// last returns the listeners that nobody takes over, which are to be emptied before they are closed.
func (s *service) last(o *drainOptions) []*listener {
	return slices.DeleteFunc(slices.Clone(s.all()), func(l *listener) bool {
		if o.quiesce != nil {
			return s.leavesQueue(l, o.orphaned)
		}
		return !slices.Contains(o.unserved, l.endpoint)
	})
}

// keepOut keeps new connections out of those listeners, if there are some.
func (o *drainOptions) keepOut(some bool) error {
	switch {
	case !some:
		return nil
	case o.quiesce != nil:
		return o.quiesce()
	case o.quiesceUnserved != nil:
		return o.quiesceUnserved()
	}
	return nil
}

// endDefer has the kernel let clients in at once, whether they have spoken or not.
func endDefer(listeners []*listener) sockets.Deferred {
	var all []net.Listener
	for _, l := range listeners {
		all = append(all, l.sockets()...)
	}
	return sockets.EndDefer(all)
}

// waitForListeners waits until listeners are closed.
func waitForListeners(ctx context.Context, listeners []*listener) {
	for _, l := range listeners {
		select {
		case <-l.closing:
		case <-ctx.Done():
		}
	}
}

// waitForServe waits until every Serve has returned: until then a connection may be on its way from accept to
// where its server knows of it. A server of others' that does not accept now does not learn that its listener is
// closed, so it does not wait for ever.
func (s *service) waitForServe(ctx context.Context) {
	done := make(chan struct{})
	go func() { s.serving.Wait(); close(done) }()
	limit := time.NewTimer(s.ShutdownTimeout / 4)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		s.log.Debug("a server does not take notice of its listener being closed")
	case <-ctx.Done():
	}
}

// disposeOfLeft deals with connections that came from elsewhere, and that no server accepted. Those that cannot be
// handed over are cut; it returns how many.
func (s *service) disposeOfLeft(o drainOptions) (cut int) {
	for _, l := range s.all() {
		for _, c := range l.left() {
			sc, ok := c.(syscall.Conn)
			if !ok || !o.handOver || !l.movable || s.boundTo(l.endpoint).Load() || s.handover(l.endpoint, sc) != nil {
				cut++
			}
			go c.Close() // which may take a while, if the peer does not read (SO_LINGER)
		}
	}
	return cut
}

// quiesceOwn keeps new connections out of the sockets that this worker serves, as the master does where there is one.
// The other workers of a Unix socket are told likewise, and its file is left to who comes next.
func (s *service) quiesceOwn() error {
	var errs []error
	for _, l := range s.all() {
		if s.stayOf(l.endpoint) != (stay{}) {
			continue
		}
		for _, socket := range l.sockets() {
			switch socket := socket.(type) {
			case *net.TCPListener:
				errs = append(errs, reuseport.Quiesce(socket))
			case *net.UnixListener:
				errs = append(errs, sockets.Refuse(socket))
			}
		}
	}
	for _, p := range s.allPackets() {
		if s.stayOf(p.endpoint) == (stay{}) && !p.endpoint.QUIC {
			errs = append(errs, reuseport.Quiesce(p.conn))
		}
	}
	return errors.Join(errs...)
}

// handoverLimit is how long connections may take that are on their way to another worker.
const handoverLimit = time.Second

// endHandover ends the handing over of connections, and returns when none is on its way any more.
func (s *service) endHandover(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handoverLimit)
	defer cancel()
	for server := range s.servers() {
		if h, ok := server.(drain.Mover); ok {
			h.EndHandover(ctx)
		}
	}
}
