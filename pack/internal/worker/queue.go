package worker

import "net"

// arrived is a connection that came from elsewhere.
type arrived struct {
	net.Conn
	from *source // nil if it was handed over
}

// push has Accept return a connection, and reports whether it will. from is nil if it was handed over.
func (l *listener) push(c net.Conn, from *source) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || l.isClosed && from == nil {
		return false
	}
	l.queue = append(l.queue, arrived{c, from})
	l.arm()
	l.changed.Broadcast()
	return true
}

// sockets returns all sockets from which it accepts.
func (l *listener) sockets() []net.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := []net.Listener{l.Listener}
	for _, s := range l.sources {
		all = append(all, s.Listener)
	}
	return all
}

// left returns, when the listener is closed and the server does not call Accept any more, the connections that it has
// not accepted.
func (l *listener) left() []net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.running > 0 {
		l.changed.Wait() // they were stopped, and may just have accepted a connection
	}
	l.over = true
	var all []net.Conn
	for _, c := range l.queue {
		c.from.taken()
		all = append(all, c.Conn)
	}
	l.queue = nil
	return all
}
