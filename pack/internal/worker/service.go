package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// service is the serving half of a pack: a worker's, or that of a pack in line.
type service struct {
	*Config
	log      *slog.Logger
	listen   opener
	handover func(wire.Endpoint, syscall.Conn) error // hands an idle connection over; may be nil

	reporter reporter
	stays    sync.Map // of a stay for each endpoint whose socket goes on without this pack
	bound    sync.Map // of an *atomic.Bool for each endpoint: set when nobody else will serve its connections
	serving  sync.WaitGroup
	broken   chan error // a server returned unasked

	shedding sync.Mutex

	mu        sync.Mutex
	listeners []*listener // in the order of the handles, as far as it came
	packets   []*packets  // likewise
}

// opener opens, or asks for, the socket of an endpoint: a net.Listener, or a net.PacketConn if it is one of packets.
// defers says that clients speak first.
type opener = func(ctx context.Context, e wire.Endpoint, defers bool) (io.Closer, error)

// start calls the hook and starts all servers. It returns when each of them accepts, or with why one does not.
func (s *service) start(ctx context.Context) error {
	if err := RaiseFiles(s.Files); err != nil {
		return err
	}
	if s.OnStart != nil {
		if err := s.OnStart(ctx); err != nil {
			return fmt.Errorf("OnWorkerStart: %w", err)
		}
	}
	if s.Prepare != nil {
		if err := s.Prepare(ctx, s.log); err != nil {
			return err
		}
	}
	handles := s.Handles()
	if len(handles) == 0 {
		return errors.New("there is nothing to serve: call Handle before Run")
	}
	s.broken = make(chan error, len(handles))
	for _, h := range handles {
		if err := h.check(); err != nil {
			return err
		}
		if h.Packets != nil {
			continue
		}
		share := func(c *tls.Config) *tls.Config { return s.Tickets.Share("address "+h.Endpoint.Name(), c) }
		h.Server.Prepare(drain.Worker{Log: s.log, Load: &s.reporter, Tickets: share})
	}
	for _, h := range handles {
		socket, err := s.listen(ctx, h.Endpoint, s.defers(h))
		if err != nil {
			return err
		}
		switch socket := socket.(type) {
		case net.Listener:
			s.serve(h, socket)
		case QUICSocket:
			h.Packets.(quicServer).Begin(socket.QUIC)
			s.servePackets(h, socket.PacketConn)
		case net.PacketConn:
			s.servePackets(h, socket)
		}
	}
	for _, l := range s.all() {
		select {
		case <-l.accepting:
		case err := <-s.broken:
			return err
		case <-ctx.Done():
			return nil // it is to stop before it was ready
		}
	}
	return nil
}

// check reports a server that is not one for its endpoint.
func (h *Handle) check() error {
	switch {
	case h.Server == nil && h.Packets == nil:
		return fmt.Errorf("the server for %s is nil", h.Endpoint)
	case h.Server != nil && h.Endpoint.IsPacket():
		return fmt.Errorf("listen %s: want the network to be tcp, tcp4, tcp6 or unix (packets are served by HandlePacket): %w",
			h.Endpoint, net.UnknownNetworkError(h.Endpoint.Network))
	case h.Packets != nil && !h.Endpoint.IsPacket():
		return fmt.Errorf("listen %s: want the network to be udp, udp4 or udp6 (connections are served by Handle): %w",
			h.Endpoint, net.UnknownNetworkError(h.Endpoint.Network))
	}
	return nil
}

// defers reports whether connections may be let in when their clients have spoken. What the user wraps may greet them.
func (s *service) defers(h Handle) bool {
	return h.Server != nil && !s.AcceptAtOnce && s.Wrap == nil && h.Endpoint.Network != "unix" && h.Server.ClientsBegin()
}

// serve starts the server of one endpoint.
func (s *service) serve(h Handle, own net.Listener) {
	l := newListener(own, h.Endpoint, s.log, s.reporter.accepted)
	l.server = h.Server
	exposed := l.exposed()
	serveOn := s.wrapped(h.Endpoint, exposed)
	if w, ok := h.Server.(drain.Mover); ok && s.handover != nil && !h.Endpoint.Own && w.CanMove() {
		pass := func(c syscall.Conn) error { return s.handover(h.Endpoint, c) }
		movable := func(l net.Listener) net.Listener { return w.Movable(l, pass, s.boundTo(h.Endpoint)) }
		if serveOn == exposed {
			l.movable = true
			serveOn = movable(exposed)
		} else if w, ok := w.(*drain.HTTP); ok { // what wraps a connection may know of it what would not go along
			l.serveBare = func(c net.Conn) bool { return serveOne(w, c, movable) }
		}
	}
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	s.serving.Go(func() {
		err := h.Server.Serve(serveOn)
		if !l.told.Load() {
			if err == nil {
				err = errors.New("its Serve returned nil")
			}
			s.broken <- fmt.Errorf("the server for %s stopped serving: %w", h.Endpoint, err)
		}
	})
}

// wrapped returns what the user wants to be served from instead of a listener.
func (s *service) wrapped(e wire.Endpoint, l net.Listener) net.Listener {
	if s.Wrap == nil {
		return l
	}
	if w := s.Wrap(e.Network, e.Address, l); w != nil {
		return w
	}
	return l
}

// all returns the listeners.
func (s *service) all() []*listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listeners[:len(s.listeners):len(s.listeners)]
}

// of returns the listener of an endpoint, nil if there is none.
func (s *service) of(e wire.Endpoint) *listener {
	for _, l := range s.all() {
		if l.endpoint == e {
			return l
		}
	}
	return nil
}

// servers returns the servers that were started, with one endpoint of each.
func (s *service) servers() map[drain.Server]wire.Endpoint {
	all := map[drain.Server]wire.Endpoint{}
	for _, l := range s.all() {
		all[l.server] = l.endpoint
	}
	return all
}

// stay is when a socket goes on without this pack, with what is queued on it: when the master is gone, or always.
type stay struct{ kept, given bool }

func (s *service) stayOf(e wire.Endpoint) stay {
	v, _ := s.stays.Load(e)
	is, _ := v.(stay)
	return is
}

// leavesQueue reports whether what is queued on a worker's socket waits for somebody else, though no worker is left. A
// socket that it serves for another may be one that ends with the pack.
func (s *service) leavesQueue(l *listener, orphaned bool) bool {
	is := s.stayOf(l.endpoint)
	return is.kept && orphaned || is.given && !l.covers()
}

// boundTo returns what is set when nobody else will serve the connections of an endpoint.
func (s *service) boundTo(e wire.Endpoint) *atomic.Bool {
	bound, _ := s.bound.LoadOrStore(e, new(atomic.Bool))
	return bound.(*atomic.Bool)
}

// shed hands over so many connections that are kept alive, since other workers have less to do, or can do more. If some
// of the work keeps the rest waiting, it is the rest that goes.
func (s *service) shed(n int) {
	s.shedding.Lock()
	defer s.shedding.Unlock()
	s.reporter.toShed.Store(int64(n))
	time.AfterFunc(shedTime, func() { s.reporter.toShed.Store(noMore) })
	for server := range s.servers() {
		if m, ok := server.(drain.Mover); ok {
			m.Shed(s.reporter.hogged.Load())
		}
	}
}

// shedTime is how long connections that become idle are handed over after the master has asked for that. It asks again
// if it is still needed.
const shedTime = time.Second

// noMore are so few that some which stay after all do not count.
const noMore = -wire.MaxShed

// cover serves another worker's socket of an endpoint, which it closes, until uncover, or to drain it, until nobody
// connects to it any more. See [listener.serve].
func (s *service) cover(e wire.Endpoint, number int, drain bool, socket net.Listener, answer func(error)) error {
	l := s.of(e)
	if l == nil {
		socket.Close()
		return errors.New("this worker does not serve the endpoint")
	}
	return l.serve(socket, number, drain, answer)
}

// uncover serves a socket no more.
func (s *service) uncover(e wire.Endpoint, number int) {
	if l := s.of(e); l != nil {
		l.unserve(number)
	}
}
