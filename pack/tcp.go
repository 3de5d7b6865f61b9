package pack

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// TCP returns a Server that calls handler with each connection, in a goroutine of its own, over TLS if
// tlsConfig is not nil, and closes the connection when handler returns.
//
// The context ends when the worker drains, but for connections that were just accepted, and in a reload after
// DrainDelay, so that short exchanges end by themselves. The handler should then finish the exchange that it is
// in and return. Connections of handlers that have not returned at the deadline are cut. A panic in a handler is
// logged with its stack and ends that connection only.
func TCP(tlsConfig *tls.Config, handler func(context.Context, net.Conn)) Server {
	s := &tcpServer{tls: tlsConfig, handler: handler, conns: map[net.Conn]struct{}{}, idle: make(chan struct{}, 1)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

type tcpServer struct {
	tls     *tls.Config
	handler func(context.Context, net.Conn)
	ctx     context.Context // of the handlers
	stop    context.CancelFunc

	log   *slog.Logger
	count openConns
	delay time.Duration // how long the handlers are not told of a drain

	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	accepted time.Time     // the last time that a connection was
	idle     chan struct{} // told when the last connection is gone
}

func (s *tcpServer) prepare(in *service) {
	s.log, s.count.reporter = in.log, &in.reporter
	if s.tls != nil {
		s.tls = in.tickets.share(s.tls)
	}
}

func (s *tcpServer) Serve(l net.Listener) error {
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
		s.accepted = time.Now()
		s.mu.Unlock()
		s.count.add(1)
		go s.serve(c)
	}
}

// checkCertificate finds the most common mistake before a client does.
func checkCertificate(c *tls.Config) error {
	if len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		return errors.New("its TLS configuration has no certificate")
	}
	return nil
}

func (s *tcpServer) serve(c net.Conn) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("handler panicked", "remote", c.RemoteAddr().String(), "panic", v, "stack", string(debug.Stack()))
		}
		c.Close()
		s.count.add(-1)
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

func (s *tcpServer) beginDrain(delay time.Duration, _ bool) { s.delay = delay }

// Shutdown lets handlers finish, first by themselves, and then by telling them to.
func (s *tcpServer) Shutdown(ctx context.Context) error {
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
func (s *tcpServer) wait(ctx context.Context) error {
	for s.open() > 0 {
		select {
		case <-s.idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (s *tcpServer) Close() error {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	return nil
}

// open returns how many connections are being served.
func (s *tcpServer) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// closeRead makes reads from a connection end once what has arrived is read.
func closeRead(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if r, ok := c.(interface{ CloseRead() error }); ok {
		r.CloseRead()
	}
}
