package drain

import (
	"bytes"
	"crypto/tls"
	"net"
	"sync"
)

// begun reports whether the beginning of a request was read from a connection of an HTTP server, and its end was not.
func begun(conn net.Conn) bool {
	if t, ok := conn.(*tls.Conn); ok {
		b, ok := t.NetConn().(tracked)
		return ok && b.track().begun(true)
	}
	switch b := conn.(type) {
	case movableConn:
		return b.movablePart().begun()
	case tracked:
		return b.track().begun(false)
	}
	return false
}

// tracked is implemented by the connections below.
type tracked interface{ track() *tracker }

// tracker tells whether something was read of a next request: since something was written last, or the connection
// became idle.
type tracker struct {
	mu    sync.Mutex
	some  int  // bytes that were read since then
	wrote bool // something was written
	idle  bool // it has become idle once
	http2 bool // without TLS
	known bool // whether it is http2
}

// handshakeRest is the most that a client says last in a TLS handshake: ChangeCipherSpec, of 6 bytes, and Finished, of
// 5 for the record, 52 and 17. Nobody can tell it from a request, but for its size.
const handshakeRest = 80

// begun reports whether what was read belongs to a request.
func (t *tracker) begun(overTLS bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if overTLS && !t.idle {
		return t.wrote && t.some > handshakeRest // before, it is of the ClientHello
	}
	return t.some > 0 && !t.http2
}

func (t *tracker) track() *tracker { return t }

func (t *tracker) afterRead(b []byte) {
	if len(b) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.some += len(b)
	if !t.known {
		t.known, t.http2 = true, bytes.HasPrefix(b, []byte("PRI "))
	}
}

func (t *tracker) beforeWrite() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.some, t.wrote = 0, true
}

func (t *tracker) setIdle(body bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idle = true
	if body {
		t.some = 0
	}
}

// setIdle notes that net/http waits for the next request. body says that the last one had a body: what was read after
// the answer was what was left of it, as far as one can tell.
func setIdle(conn net.Conn, body bool) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(tracked); ok {
		t.track().setIdle(body)
	}
}

// tracking is a listener that counts its open connections, and tracks them.
type tracking struct {
	net.Listener
	server *HTTP
}

func (l tracking) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.server.open.add(1)
	closed := sync.OnceFunc(func() { l.server.open.add(-1) })
	switch c := c.(type) {
	case *tls.Conn:
		return c, nil // net/http knows it by its type; see isBare
	case *net.TCPConn:
		return &trackedTCP{countedTCP: countedTCP{c, closed}}, nil
	case *net.UnixConn:
		return &trackedUnix{countedUnix: countedUnix{c, closed}}, nil
	default:
		return &trackedConn{countedConn: countedConn{c, closed}}, nil
	}
}

// isBare reports whether a connection is one of a listener of the user's that does TLS by itself. net/http would
// neither look for HTTP/2 on it, nor set Request.TLS, if it were embedded in another. So nobody sees it being closed,
// and it counts as open for as long as net/http tells of it.
func isBare(conn net.Conn) bool {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return false
	}
	_, ours := t.NetConn().(tracked)
	return !ours
}

type trackedTCP struct {
	countedTCP
	tracker
}

func (c *trackedTCP) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.afterRead(b[:n])
	return n, err
}

func (c *trackedTCP) Write(b []byte) (int, error) {
	c.beforeWrite()
	return c.TCPConn.Write(b)
}

type trackedUnix struct {
	countedUnix
	tracker
}

func (c *trackedUnix) Read(b []byte) (int, error) {
	n, err := c.UnixConn.Read(b)
	c.afterRead(b[:n])
	return n, err
}

func (c *trackedUnix) Write(b []byte) (int, error) {
	c.beforeWrite()
	return c.UnixConn.Write(b)
}

// trackedConn is any other, such as one that a listener of the user's has wrapped.
type trackedConn struct {
	countedConn
	tracker
}

func (c *trackedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.afterRead(b[:n])
	return n, err
}

func (c *trackedConn) Write(b []byte) (int, error) {
	c.beforeWrite()
	return c.Conn.Write(b)
}
