package pack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/rlimit"
)

// service is the serving half of a pack: a worker's, or that of a pack in line.
type service struct {
	pack   *Pack
	log    *slog.Logger
	listen func(endpoint) (net.Listener, error) // opens, or asks for, a socket
	pass   func(endpoint, syscall.Conn) error   // hands an idle connection over; nil if that cannot be

	tickets   ticketKeeper
	reporter  reporter
	bound     sync.Map    // of an *atomic.Bool for each endpoint: set when nobody else will serve its connections
	listeners []*listener // of the pack's handles, in their order, as far as it came
	serving   sync.WaitGroup
	mu        sync.Mutex
	arrivals  map[endpoint]*drain.Arrivals // where connections from other workers are served
	borrowed  map[loan]*listener           // of other workers, which serve no more
	draining  bool                         // nothing more is to be accepted
	broken    chan error                   // a server returned unasked
}

// start calls the hook and starts all servers. It returns when each of them accepts, or with why one does not.
func (s *service) start(ctx context.Context) error {
	if err := raiseFiles(s.pack.config.Files); err != nil {
		return err
	}
	if hook := s.pack.config.OnWorkerStart; hook != nil {
		if err := hook(ctx); err != nil {
			return fmt.Errorf("OnWorkerStart: %w", err)
		}
	}
	s.pack.sealed.Store(true)
	handles := s.pack.handles
	if len(handles) == 0 {
		return errors.New("there is nothing to serve: call Handle before Run")
	}
	s.broken = make(chan error, len(handles))
	for _, h := range handles {
		if h.server == nil {
			return fmt.Errorf("the server for %s is nil", h.endpoint)
		}
		h.server.Prepare(drain.Worker{Log: s.log, Load: &s.reporter, Tickets: s.tickets.share})
	}
	for _, h := range handles {
		socket, err := s.listen(h.endpoint)
		if err != nil {
			return err
		}
		s.serve(h, newListener(socket, h.endpoint, s.log, s.reporter.accepted))
	}
	for _, l := range s.listeners {
		select {
		case <-l.accepting:
		case err := <-s.broken:
			return err
		case <-ctx.Done():
			return nil // asked to stop before it was ready
		}
	}
	return nil
}

// serve starts the server of one endpoint.
func (s *service) serve(h handle, l *listener) {
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	serveOn := s.movable(h, l)
	if serveOn != l {
		s.serveArrivals(h, s.movable(h, s.addArrivals(h.endpoint, l.Addr())))
	}
	s.serving.Go(func() {
		err := h.server.Serve(serveOn)
		if !l.closed() && l.finishing.Load() == 0 {
			if err == nil {
				err = errors.New("Serve returned nil")
			}
			s.broken <- fmt.Errorf("the server for %s stopped serving: %w", h.endpoint, err)
		}
	})
}

// borrowEmpty is how long nobody must have connected to a borrowed socket until it is given back: longer than a
// handshake takes that began before the kernel was told to choose other sockets.
const borrowEmpty = time.Second

// borrow serves another worker's socket of an endpoint, which it closes, until nobody connects to it any more, or, to cover
// for that worker, until giveBack. It does not wait for that; returned is told what came of it.
func (s *service) borrow(what loan, cover bool, socket net.Listener, returned func(error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := what.endpoint
	i := slices.IndexFunc(s.listeners, func(l *listener) bool { return l.endpoint == e })
	if i < 0 || s.draining {
		socket.Close()
		return errors.New("this worker does not serve the endpoint, or not any more")
	}
	l := newListener(socket, e, s.log, func() {})
	if s.borrowed == nil {
		s.borrowed = map[loan]*listener{}
	}
	if before := s.borrowed[what]; before != nil {
		before.Close()
	}
	s.borrowed[what] = l
	serveOn := s.movable(s.pack.handles[i], l)
	if !cover {
		l.finish(borrowEmpty)
	}
	s.serving.Go(func() {
		s.pack.handles[i].server.Serve(serveOn)
		l.Close()
		if l.emptied.Load() {
			returned(nil)
		} else {
			returned(errors.New("this worker stopped serving it"))
		}
	})
	return nil
}

// giveBack serves no more a socket that was borrowed to cover for a worker.
func (s *service) giveBack(what loan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.borrowed[what]; l != nil {
		l.Close()
		delete(s.borrowed, what)
	}
}

// movable returns a listener whose connections can be handed over, if those of the server can.
func (s *service) movable(h handle, l net.Listener) net.Listener {
	if w, ok := h.server.(*drain.HTTP); ok && s.pass != nil && w.CanMove() {
		return w.Movable(l, func(c syscall.Conn) error { return s.pass(h.endpoint, c) }, s.boundTo(h.endpoint))
	}
	return l
}

// boundTo returns what is set when nobody else will serve the connections of an endpoint.
func (s *service) boundTo(e endpoint) *atomic.Bool {
	bound, _ := s.bound.LoadOrStore(e, new(atomic.Bool))
	return bound.(*atomic.Bool)
}

// addArrivals makes the place where connections of an endpoint arrive from other workers.
func (s *service) addArrivals(e endpoint, addr net.Addr) *drain.Arrivals {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arrivals == nil {
		s.arrivals = map[endpoint]*drain.Arrivals{}
	}
	s.arrivals[e] = drain.NewArrivals(addr)
	return s.arrivals[e]
}

// serveArrivals serves what arrives there.
func (s *service) serveArrivals(h handle, l net.Listener) {
	s.serving.Go(func() { h.server.Serve(l) }) // its end is no failure that the other listener's is not
}

// arrivalsOf returns where connections of an endpoint arrive; nil if this worker takes none.
func (s *service) arrivalsOf(e endpoint) *drain.Arrivals {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arrivals[e]
}

// queueEmpty is how long a queue must stay empty to count as empty: a handshake may be under way. queueLimit is
// how long that may take where new connections cannot be kept out.
const (
	queueEmpty = 20 * time.Millisecond
	queueLimit = time.Second
)

// drainOptions is how a service is drained.
type drainOptions struct {
	// quiesce is set if nobody takes over the sockets, so that what is queued on them must be served before
	// they are closed. It keeps new connections out, or says why it cannot.
	quiesce func() error
	// takenOver is set if other workers go on serving what this one did, and handOver if they take its idle
	// connections.
	takenOver, handOver bool
	// unserved are endpoints that others do not go on serving all the same. New connections are kept out, if that can be.
	unserved []endpoint
	// closed, if set, is called when the sockets are closed.
	closed func()
}

// drain stops accepting and finishes what is there until ctx ends, then cuts the rest and returns how many
// connections that were.
func (s *service) drain(ctx context.Context, o drainOptions) (cut int) {
	if hook := s.pack.config.OnShutdown; hook != nil {
		hook(ctx)
	}
	for _, e := range o.unserved {
		s.boundTo(e).Store(true)
	}
	for server := range s.servers() {
		server.BeginDrain(s.pack.config.drainDelay(o.takenOver), o.handOver)
	}
	s.closeListeners(ctx, o)
	if o.closed != nil {
		o.closed()
	}
	var stopping sync.WaitGroup
	var total atomic.Int64
	for server, e := range s.servers() {
		stopping.Go(func() {
			if err := server.Shutdown(ctx); err != nil {
				left := server.Open()
				total.Add(int64(left))
				s.log.Debug("server did not finish", "endpoint", e.String(), "error", err, "connections", left)
				server.Close()
			}
		})
	}
	stopping.Wait()
	return int(total.Load())
}

// stayLimit is how long connections may take that are on their way to another worker.
const stayLimit = time.Second

// stay ends the handing over of connections, and returns when none is on its way any more.
func (s *service) stay(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stayLimit)
	defer cancel()
	s.mu.Lock()
	servers := s.servers()
	s.mu.Unlock()
	for server := range servers {
		if h, ok := server.(*drain.HTTP); ok {
			h.Stay(ctx)
		}
	}
}

// closeListeners closes the listeners, after what is queued on them was accepted if nobody takes over, and waits until
// every Serve has returned: until then a connection may be on its way from accept to where its server knows of it.
func (s *service) closeListeners(ctx context.Context, o drainOptions) {
	limit := s.pack.config.ShutdownTimeout / 2 // a server that does not accept now must not take all of it
	var last []*listener                       // to be emptied before they are closed
	if o.quiesce == nil {
		limit = min(limit, queueLimit)
		for _, l := range s.listeners {
			if slices.Contains(o.unserved, l.endpoint) {
				last = append(last, l)
			}
		}
	} else {
		last = s.listeners
		if err := o.quiesce(); err != nil {
			s.log.Debug("new connections cannot be kept out", "error", err)
			limit = min(limit, queueLimit)
		}
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, l := range s.listeners {
		if slices.Contains(last, l) {
			l.finish(queueEmpty)
		} else {
			l.Close()
		}
	}
	waitForListeners(limited, last)
	for _, l := range s.listeners {
		l.Close()
	}
	s.mu.Lock()
	s.draining = true
	for _, l := range s.borrowed {
		l.Close()
	}
	for _, a := range s.arrivals {
		a.Close()
	}
	s.mu.Unlock()
	s.waitForServe(ctx)
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
// where the server knows of it.
func (s *service) waitForServe(ctx context.Context) {
	done := make(chan struct{})
	go func() { s.serving.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// servers returns the servers that were started, with one endpoint of each.
func (s *service) servers() map[drain.Server]endpoint {
	all := map[drain.Server]endpoint{}
	for i, l := range s.listeners {
		all[s.pack.handles[i].server] = l.endpoint
	}
	return all
}

// raiseFiles gives this process the limit of open files that it must have, or as much as it may.
func raiseFiles(files uint64) error {
	const plenty = 1 << 30 // what unlimited is cut down to; systems refuse more in various ways
	now, err := rlimit.Get(rlimit.NOFILE)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	if files == 0 {
		// As much as there is, and no reason to fail: on some systems the hard limit cannot be reached.
		rlimit.Raise(rlimit.NOFILE, min(now.Hard, plenty))
		return nil
	}
	if _, err = rlimit.Raise(rlimit.NOFILE, files); err != nil {
		return fmt.Errorf("%w (raise it with ulimit -Hn or LimitNOFILE=, or lower Config.Files)", err)
	}
	return nil
}
