package drain

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// TCP calls a function with each connection, in a goroutine of its own, and closes the connection when that returns.
// The context that it passes ends when it is time to finish. A panic of the function is logged and ends its connection
// only.
type TCP struct {
	tls     *tls.Config
	handler func(context.Context, net.Conn)
	ctx     context.Context // of the handlers
	stop    context.CancelFunc

	log   *slog.Logger
	load  count
	delay time.Duration // how long the handlers are not told of a drain

	mu       sync.Mutex
	draining bool
	conns    map[net.Conn]struct{}
	accepted time.Time     // the last time that a connection was
	idle     chan struct{} // told when the last connection is gone
}

// NewTCP returns a Server that serves over TLS if tlsConfig is not nil.
func NewTCP(tlsConfig *tls.Config, handler func(context.Context, net.Conn)) *TCP {
	s := &TCP{tls: tlsConfig, handler: handler, conns: map[net.Conn]struct{}{}, idle: make(chan struct{}, 1)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// ClientsBegin implements Server: over TLS they do.
func (s *TCP) ClientsBegin() bool { return s.tls != nil }

// Prepare implements Server.
func (s *TCP) Prepare(w Worker) {
	s.log, s.load.load = w.Log, w.Load
	if s.tls != nil {
		s.tls = w.Tickets(s.tls)
	}
}

// Serve accepts until the listener is closed.
func (s *TCP) Serve(l net.Listener) error {
	if s.tls != nil {
		if err := checkCertificate(s.tls); err != nil {
			return err
		}
		l = tls.NewListener(l, s.tls)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		accepted := time.Now()
		if s.draining {
			accepted = heardAt(c, accepted)
		}
		s.accepted = later(s.accepted, accepted)
		s.mu.Unlock()
		s.load.add(1)
		go s.serve(c)
	}
}

func (s *TCP) serve(c net.Conn) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("handler panicked",
				"remote", c.RemoteAddr().String(), "panic", v, "stack", string(debug.Stack()))
		}
		c.Close()
		s.load.add(-1)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		if len(s.conns) == 0 {
			select {
			case s.idle <- struct{}{}:
			default:
			}
		}
	}()
	s.handler(s.ctx, c)
}

// BeginDrain leaves handlers alone for the delay.
func (s *TCP) BeginDrain(delay time.Duration, _ bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay, s.draining = delay, true
}

// Shutdown lets handlers finish, first by themselves, and then by telling them to.
func (s *TCP) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	untold := max(s.delay, time.Until(s.accepted.Add(newConnGrace)))
	s.mu.Unlock()
	alone, cancel := context.WithTimeout(ctx, untold)
	defer cancel()
	if s.wait(alone) == nil {
		return nil
	}
	s.stop()
	return s.wait(ctx)
}

// wait waits until no connection is left, or ctx ends.
func (s *TCP) wait(ctx context.Context) error {
	for s.Open() > 0 {
		select {
		case <-s.idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Close cuts the connections that are left.
func (s *TCP) Close() error {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	return nil
}

// Open returns how many connections are being served.
func (s *TCP) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Unfinished implements Server.
func (s *TCP) Unfinished() int { return s.Open() }

// CloseRead makes reads from a connection end once what has arrived is read. With one that wraps another, and tells
// neither how to do that nor what it wraps, they end at once.
func CloseRead(c net.Conn) {
	for {
		if r, ok := c.(interface{ CloseRead() error }); ok {
			r.CloseRead()
			return
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			c.SetReadDeadline(time.Unix(1, 0))
			return
		}
		c = w.NetConn()
	}
}
