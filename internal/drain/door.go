package drain

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// door is the listener that a server of somebody else's gets. When the socket is closed, its Accept goes on waiting
// until the server is to end: there are servers that cut their connections when Accept fails.
type door struct {
	net.Listener
	house *foreign
	pass  func(syscall.Conn) error // as of guest
	bound *atomic.Bool

	once     sync.Once
	closed   chan struct{} // closed when the socket is, and Accept has said so
	noMore   sync.Once
	released chan struct{} // closed when Accept may say so to the server
}

func newDoor(l net.Listener, house *foreign) *door {
	d := &door{Listener: l, house: house, closed: make(chan struct{}), released: make(chan struct{})}
	if p, ok := l.(passing); ok {
		d.Listener, d.pass, d.bound = p.Listener, p.pass, p.bound
	}
	return d
}

// exposed returns the door with the methods that its socket has.
func (d *door) exposed() net.Listener {
	if sc, ok := d.Listener.(syscall.Conn); ok {
		return doorSocket{d, sc}
	}
	return d
}

type doorSocket struct {
	*door
	syscall.Conn
}

func (d *door) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err == nil {
		return d.house.enter(c, d), nil
	}
	if errors.Is(err, net.ErrClosed) {
		d.once.Do(func() { close(d.closed) })
		<-d.released
	}
	return nil, err
}

// release has Accept fail once the socket is closed.
func (d *door) release() { d.noMore.Do(func() { close(d.released) }) }

// Close is called by the server.
func (d *door) Close() error {
	d.release()
	if err := d.Listener.Close(); !errors.Is(err, net.ErrClosed) { // in a drain it is closed already
		return err
	}
	return nil
}

// passing is a listener whose connections can be handed over.
type passing struct {
	net.Listener
	pass  func(syscall.Conn) error
	bound *atomic.Bool
}
