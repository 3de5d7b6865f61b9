package drain

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// httpConn is the part of a connection that an HTTP server looks at. It is in the connection itself, not in a table: a
// request must not cost a lookup, or a lock that all connections share.
type httpConn struct {
	server *HTTP    // nil until the connection is known
	conn   net.Conn // as net/http has it
	own    ownConn  // this one

	mu    sync.Mutex
	state connState
	since time.Time // of the state, if it is fresh, or idle since a drain has begun; else zero
	told  bool      // the response to the request that is being handled asks the client to close
	body  bool      // the request has a body
	http2 bool      // over TLS
	asked bool      // there was a request, so http2 is known

	arrived bool // from another worker, and nothing was asked since
}

type connState int

const (
	fresh    connState = iota // accepted, no request yet
	received                  // a request was read, its handler has not begun
	handling                  // a handler has begun: Shutdown waits for it
	idle                      // between requests
	gone                      // closed, or hijacked
)

// between reports whether net/http is between requests, or reads the header of the next. It is called with mu locked.
func (c *httpConn) between() bool { return c.state == fresh || c.state == idle }

// ownConn is a connection that an HTTP server accepts.
type ownConn interface {
	net.Conn

	// part returns what the connection has as every one.
	part() *httpConn

	// became is called with mu locked when net/http is in another state.
	became(connState)

	// begun reports whether the beginning of a request was read, and its end was not.
	begun() bool
}

func (c *httpConn) part() *httpConn { return c }

// ownConnOf returns the connection of a server of this package that net/http has; nil if it is none, but of a listener
// that somebody else gave the server.
func ownConnOf(conn net.Conn) ownConn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, _ := conn.(ownConn)
	return c
}

// holder counts a connection for as long as it is open.
type holder struct {
	conns *count
	left  atomic.Bool
}

func (h *holder) leave() {
	if !h.left.Swap(true) {
		h.conns.add(-1)
	}
}

// become follows net/http. What was hijacked is somebody else's, and is followed no more.
func (c *httpConn) become(state http.ConnState) {
	over := state == http.StateClosed || state == http.StateHijacked
	if t, ok := c.conn.(*tls.Conn); ok && state == http.StateActive {
		c.learn(t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == gone {
		return
	}
	c.arrived, c.since = false, time.Time{}
	switch {
	case over:
		c.state = gone
	case state == http.StateIdle:
		c.state = idle
		if c.server.draining.Load() {
			c.since = time.Now()
		}
	case c.http2: // streams end after a GOAWAY, none is lost
		c.state = handling
	default:
		c.state = received
	}
	c.own.became(c.state)
}

// learn finds out at the first request which HTTP it is. To ask takes a while, and a lock of TLS.
func (c *httpConn) learn(t *tls.Conn) {
	c.mu.Lock()
	known := c.asked
	c.mu.Unlock()
	if known {
		return
	}
	isHTTP2 := t.ConnectionState().NegotiatedProtocol == "h2"
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked, c.http2 = true, isHTTP2
}

// handle notes that a handler begins.
func (c *httpConn) handle(told, body bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != gone {
		c.state, c.told, c.body = handling, told, body
	}
}

// isNew reports whether net/http takes it for new, and nothing of a request was read.
func (c *httpConn) isNew() bool {
	c.mu.Lock()
	isNew := c.state == fresh || c.state == idle && c.arrived
	c.mu.Unlock()
	return isNew && !c.own.begun()
}
