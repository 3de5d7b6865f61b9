package drain

import (
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// HTTP drains an http.Server without losing a request.
//
// http.Server.Shutdown by itself loses some: a connection on which a request arrives after Shutdown has begun is
// closed without a reply, even if the whole request was read before (net/http, conn.serve). So before Shutdown
// the server stops accepting, gives fresh connections the time to be served their first request, and tells
// clients by "Connection: close" to use a new connection for the next.
type HTTP struct {
	*http.Server
	secure     bool // serve TLS; decided before net/http sets a TLSConfig of its own
	draining   atomic.Bool
	moving     atomic.Bool   // idle connections are handed over
	staying    atomic.Bool   // and not any more
	begun      chan struct{} // closed when a drain begins
	open       count         // connections, hijacked ones included
	drainDelay time.Duration // how long idle connections are left open for a next request; set by BeginDrain
	drainBegan time.Time     // set by BeginDrain
	hooked     sync.Once

	mu    sync.Mutex
	conns map[*httpConn]struct{}
	bare  map[*tls.Conn]*trackedConn // those that net/http must have as they are; see tracking
	gone  time.Time                  // the last time that a connection went, in a drain
}

// newConnGrace is how long a connection on which nothing was asked yet may hold up a drain: what its client wants
// is on the way.
const newConnGrace = time.Second

// NewHTTP returns a Server that serves with srv, whose hooks it extends when it first serves.
func NewHTTP(srv *http.Server) *HTTP {
	return &HTTP{Server: srv, conns: map[*httpConn]struct{}{}, bare: map[*tls.Conn]*trackedConn{}, begun: make(chan struct{})}
}

// httpConnKey is the key of a request's connection.
type httpConnKey struct{}

// Begun returns a channel that is closed when the server that a request is served by begins to drain; nil if ctx is no
// request's context.
func Begun(ctx context.Context) <-chan struct{} {
	if c, ok := ctx.Value(httpConnKey{}).(*httpConn); ok {
		return c.server.begun
	}
	return nil
}

// Serve serves, over TLS if the server has a TLSConfig of its user. It can be called with several listeners.
func (h *HTTP) Serve(l net.Listener) error {
	if _, ok := l.(movableListener); !ok { // which counts by itself
		l = tracking{l, h}
	}
	if h.isSecure() {
		if err := checkCertificate(h.TLSConfig); err != nil {
			return err
		}
		return h.ServeTLS(l, "", "")
	}
	return h.Server.Serve(l)
}

// isSecure reports whether the server serves TLS.
func (h *HTTP) isSecure() bool {
	h.hooked.Do(h.hook)
	return h.secure
}

// ClientsBegin implements Server.
func (h *HTTP) ClientsBegin() bool { return true }

// CanMove implements Mover: plaintext HTTP/1.1 connections have no state but the socket's.
func (h *HTTP) CanMove() bool {
	return !h.isSecure() && (h.Protocols == nil || !h.Protocols.UnencryptedHTTP2())
}

// hook adds to the server's hooks.
func (h *HTTP) hook() {
	h.secure = wantsTLS(h.TLSConfig)
	next := h.handler()
	h.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.open.load != nil {
			h.open.load.Served(1)
		}
		c, known := r.Context().Value(httpConnKey{}).(*httpConn)
		told := h.tells(c)
		if known {
			c.handle(told, r)
		}
		if told {
			tellToClose(w, r)
		}
		next.ServeHTTP(w, r)
		if !told && h.tells(c) { // by now
			closeAfterReply(w)
		}
	})
	h.TLSNextProto = h.nextProtos()
	connContext := h.ConnContext
	h.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, conn)
		}
		if c := h.enter(conn); c != nil {
			return context.WithValue(ctx, httpConnKey{}, c)
		}
		return ctx
	}
	connState := h.ConnState
	h.ConnState = func(conn net.Conn, state http.ConnState) {
		h.observe(conn, state)
		if connState != nil {
			connState(conn, state)
		}
	}
}

// handler returns the user's handler. "OPTIONS *" net/http would answer by itself, and not say that the connection
// ends.
func (h *HTTP) handler() http.Handler {
	next := h.Handler
	if next == nil {
		next = http.DefaultServeMux
	}
	if h.DisableGeneralOptionsHandler {
		return next
	}
	h.DisableGeneralOptionsHandler = true
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "*" || r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", "0")
		io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 4<<10))
	})
}

// tells reports whether the client of a connection is to be told to close it. c is nil if nothing is known of it.
func (h *HTTP) tells(c *httpConn) bool {
	return h.draining.Load() && !(c != nil && canGo(c.own) && h.handsOver())
}

// nextProtos returns the user's own protocols, by ALPN. net/http does not tell of their connections until they end.
func (h *HTTP) nextProtos() map[string]func(*http.Server, *tls.Conn, http.Handler) {
	own := maps.Clone(h.TLSNextProto)
	for proto, serve := range own {
		if proto != "h2" { // of package http2, which does
			own[proto] = func(srv *http.Server, conn *tls.Conn, handler http.Handler) {
				if c := h.own(conn); c != nil {
					c.part().handOff()
				}
				serve(srv, conn, handler)
			}
		}
	}
	return own
}

// own returns the connection of this package that net/http has as conn; nil if it is none, but of a listener that
// somebody else gave the server.
func (h *HTTP) own(conn net.Conn) ownConn {
	t, ok := conn.(*tls.Conn)
	if !ok {
		c, _ := conn.(ownConn)
		return c
	}
	if c, ok := t.NetConn().(ownConn); ok {
		return c
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.bare[t]; c != nil {
		return c
	}
	return nil
}

// enter notes a new connection. net/http asks for a connection's context before it reports the connection as new, so
// this is where it is first seen.
func (h *HTTP) enter(conn net.Conn) *httpConn {
	own := h.own(conn)
	if own == nil {
		return nil
	}
	c := own.part()
	c.server, c.conn, c.own, c.since = h, conn, own, time.Now()
	if c.arrived { // it was kept alive where it comes from
		c.mu.Lock()
		c.keep(true)
		c.mu.Unlock()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[c] = struct{}{}
	return c
}

// leave forgets a connection.
func (h *HTTP) leave(c *httpConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
	if t, ok := c.conn.(*tls.Conn); ok && h.bare[t] != nil {
		h.bare[t].leave()
		delete(h.bare, t)
	}
	if h.draining.Load() {
		h.gone = time.Now()
	}
}

// observe follows net/http's own view of a connection, and has it go if that is wanted.
func (h *HTTP) observe(conn net.Conn, state http.ConnState) {
	own := h.own(conn)
	if own == nil || state == http.StateNew {
		return
	}
	c := own.part()
	c.become(state)
	switch state {
	case http.StateClosed, http.StateHijacked:
		h.leave(c)
	case http.StateIdle:
		if m, ok := own.(movableConn); ok {
			h.letGo(m.movablePart())
		}
	}
}

// letGo has a connection go that has just become idle, if that is wanted.
func (h *HTTP) letGo(m *movable) {
	if h.handsOver() {
		m.wake()
	} else if !m.shed() {
		return
	}
	if h.staying.Load() { // since just now
		m.stay()
	}
}

// Prepare implements Server.
func (h *HTTP) Prepare(w Worker) {
	h.open.load, h.open.requests = w.Load, true
	h.hooked.Do(h.hook)
	if h.secure {
		h.TLSConfig = w.Tickets(h.TLSConfig)
	}
}

// Open returns how many connections there are, hijacked ones included.
func (h *HTTP) Open() int { return h.open.open() }
