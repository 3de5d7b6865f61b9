package drain

import (
	"bytes"
	"crypto/tls"
	"net"
)

// tracker is the part of a connection that stays with its worker. It tells whether something was read of a next
// request: since something was written last, or the connection became idle.
type tracker struct {
	httpConn
	holder

	// These are guarded by mu.
	some    int  // bytes that were read since then
	wrote   bool // something was written
	wasIdle bool // it has become idle once
	known   bool // whether the client speaks HTTP/2 without TLS
	prior   bool // and it does
}

// handshakeRest is the most that a client says last in a TLS handshake: ChangeCipherSpec, of 6 bytes, and Finished, of
// 5 for the record, 52 and 17. Nobody can tell it from a request, but for its size.
const handshakeRest = 80

func (t *tracker) begun() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, overTLS := t.conn.(*tls.Conn); overTLS && !t.wasIdle {
		return t.between() && t.wrote && t.some > handshakeRest // before, it is of the ClientHello
	}
	return t.between() && t.some > 0 && !t.prior
}

// became notes when net/http waits for the next request. If the last one had a body, what was read after the answer was
// what was left of it, as far as one can tell.
func (t *tracker) became(state connState) {
	if state != idle {
		return
	}
	t.wasIdle = true
	if t.body {
		t.some = 0
	}
}

func (t *tracker) afterRead(b []byte) {
	if len(b) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.some += len(b)
	if !t.known {
		t.known, t.prior = true, bytes.HasPrefix(b, []byte("PRI "))
	}
}

func (t *tracker) beforeWrite() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.some, t.wrote = 0, true
}

// tracking is a listener that counts its open connections, and tracks them.
//
// If it is one of the user's that does TLS by itself, its connections stay what they are: net/http would neither look
// for HTTP/2 on one, nor set Request.TLS, if it were embedded in another. So nobody sees what is read from one, or it
// being closed, and it counts as open for as long as net/http tells of it.
type tracking struct {
	net.Listener
	server *HTTP
}

func (l tracking) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if t, ok := c.(*tls.Conn); ok {
		l.server.mu.Lock()
		defer l.server.mu.Unlock()
		l.server.bare[t] = track(t, &l.server.open).(*trackedConn)
		return t, nil
	}
	return track(c, &l.server.open), nil
}

func track(c net.Conn, conns *count) net.Conn {
	conns.add(1)
	switch c := c.(type) {
	case *net.TCPConn:
		return &trackedTCP{c, tracker{holder: holder{conns: conns}}}
	case *net.UnixConn:
		return &trackedUnix{c, tracker{holder: holder{conns: conns}}}
	default:
		return &trackedConn{c, tracker{holder: holder{conns: conns}}}
	}
}

// trackedTCP and trackedUnix embed the concrete type, which keeps ReadFrom (sendfile, splice), SyscallConn, CloseWrite
// and the rest.
type trackedTCP struct {
	*net.TCPConn
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

func (c *trackedTCP) Close() error {
	c.leave()
	return c.TCPConn.Close()
}

type trackedUnix struct {
	*net.UnixConn
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

func (c *trackedUnix) Close() error {
	c.leave()
	return c.UnixConn.Close()
}

// trackedConn is any other, such as one that a listener of the user's has wrapped.
type trackedConn struct {
	net.Conn
	tracker
}

// NetConn returns the connection that was accepted, whose type says more.
func (c *trackedConn) NetConn() net.Conn { return c.Conn }

func (c *trackedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.afterRead(b[:n])
	return n, err
}

func (c *trackedConn) Write(b []byte) (int, error) {
	c.beforeWrite()
	return c.Conn.Write(b)
}

func (c *trackedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
