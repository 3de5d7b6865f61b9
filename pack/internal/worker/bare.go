package worker

import (
	"net"
	"sync/atomic"

	"github.com/gopherpack/gopherpack/internal/drain"
)

// serveOne has a server serve a connection that was handed over, which need not come from a listener of its own, and
// reports whether it has taken it.
func serveOne(w *drain.HTTP, c net.Conn, movable func(net.Listener) net.Listener) bool {
	one := &oneConn{conn: c}
	w.Serve(movable(one)) // it returns at once, and the connection is served
	return one.taken.Load()
}

// oneConn is a listener of one connection.
type oneConn struct {
	conn  net.Conn
	taken atomic.Bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.taken.CompareAndSwap(false, true) {
		return drain.Arrived(l.conn), nil
	}
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }
