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
		return t.between() && t.some > handshakeRest
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
	t.some = 0
}

// tracking is a listener that counts its open connections, and tracks them.
type tracking struct {
	net.Listener
	conns *count
}

func (l tracking) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return track(c, l.conns), nil
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
