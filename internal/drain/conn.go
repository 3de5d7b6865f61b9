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
	http2 bool
	asked bool // there was a request over TLS: http2 is known

	arrived bool // from another worker, and nothing was asked since
	again   bool // the next request is not the first
	kept    bool // it is kept alive, and can be handed over: the server's load knows of it
	stays   bool // it is not to be shed: the server worked for it when others were
	weighed bool // since is when the client is to be taken to have connected
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
		c.keep(false)
	case state == http.StateIdle:
		c.state = idle
		if c.server.draining.Load() {
			c.since = time.Now()
		}
	case c.http2: // streams end after a GOAWAY, none is lost
		c.state = handling
	default:
		c.state = received
		if c.again && !c.kept {
			c.keep(true)
		}
		c.again = true
	}
	c.own.became(c.state)
}

// keep notes whether it is kept alive, and can be handed over. It is called with mu locked.
func (c *httpConn) keep(is bool) {
	switch {
	case is && !c.kept && canGo(c.own):
		c.kept = true
		c.server.open.movable(1)
	case !is && c.kept:
		c.kept = false
		c.server.open.movable(-1)
	}
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
func (c *httpConn) handle(told bool, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == gone {
		return
	}
	c.state, c.told, c.body = handling, told, r.ContentLength != 0
	c.http2 = c.http2 || r.ProtoMajor == 2
}

// handOff notes that a connection is served by a protocol of the user's own. As Shutdown does, a drain waits for its
// end.
func (c *httpConn) handOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.told = handling, true
}

// isIdle reports whether nothing is going on.
func (c *httpConn) isIdle() bool {
	c.mu.Lock()
	idle := c.between()
	c.mu.Unlock()
	return idle && !c.own.begun()
}

// isNew reports whether net/http takes it for new, and nothing of a request was read.
func (c *httpConn) isNew() bool {
	c.mu.Lock()
	isNew := c.state == fresh || c.state == idle && c.arrived
	c.mu.Unlock()
	return isNew && !c.own.begun()
}
