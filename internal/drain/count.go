package drain

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// count is how many connections of a server are open.
type count struct {
	mu       sync.Mutex
	n        int
	fresh    int  // those that the server has done nothing with yet
	load     Load // is told, too; nil if nobody is
	requests bool // what is served are requests, which somebody else counts
}

func (c *count) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	if c.load == nil {
		return
	}
	c.load.Open(n)
	if n > 0 && !c.requests {
		c.load.Served(uint64(n))
	}
}

func (c *count) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// untouched returns how many connections the server has been given, and done nothing with yet.
func (c *count) untouched() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fresh
}

// freshen notes that so many more connections are untouched.
func (c *count) freshen(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh += n
}

// wait waits until no connection is open, or ctx ends.
func (c *count) wait(ctx context.Context) error { return waitForNone(ctx, c.open) }

// waitForNone waits until there are none, or ctx ends.
func waitForNone(ctx context.Context, how func() int) error {
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	for how() > 0 {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// counting is a listener that counts its open connections.
type counting struct {
	net.Listener
	conns *count
}

// counted returns a listener that counts its open connections, and has SyscallConn if l has it.
func counted(l net.Listener, conns *count) net.Listener {
	if sc, ok := l.(syscall.Conn); ok {
		return countingSocket{counting{l, conns}, sc}
	}
	return counting{l, conns}
}

type countingSocket struct {
	counting
	syscall.Conn
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.conns.add(1)
	l.conns.freshen(1)
	touch := sync.OnceFunc(func() { l.conns.freshen(-1) })
	closed := sync.OnceFunc(func() { touch(); l.conns.add(-1) })
	// Embedding the concrete type keeps ReadFrom (sendfile, splice), SyscallConn, CloseWrite and the rest.
	switch c := c.(type) {
	case *net.TCPConn:
		return &countedTCP{c, touch, closed}, nil
	case *net.UnixConn:
		return &countedUnix{c, touch, closed}, nil
	default:
		return &countedConn{c, touch, closed}, nil
	}
}

type countedTCP struct {
	*net.TCPConn
	touch, closed func()
}

func (c *countedTCP) Read(b []byte) (int, error) {
	c.touch()
	return c.TCPConn.Read(b)
}

func (c *countedTCP) SetDeadline(d time.Time) error {
	c.touch()
	return c.TCPConn.SetDeadline(d)
}

func (c *countedTCP) Close() error {
	c.closed()
	return c.TCPConn.Close()
}

type countedUnix struct {
	*net.UnixConn
	touch, closed func()
}

func (c *countedUnix) Read(b []byte) (int, error) {
	c.touch()
	return c.UnixConn.Read(b)
}

func (c *countedUnix) SetDeadline(d time.Time) error {
	c.touch()
	return c.UnixConn.SetDeadline(d)
}

func (c *countedUnix) Close() error {
	c.closed()
	return c.UnixConn.Close()
}

type countedConn struct {
	net.Conn
	touch, closed func()
}

// NetConn returns the connection that was accepted, whose type says more.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

func (c *countedConn) Read(b []byte) (int, error) {
	c.touch()
	return c.Conn.Read(b)
}

func (c *countedConn) SetDeadline(d time.Time) error {
	c.touch()
	return c.Conn.SetDeadline(d)
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

func nothing() {}
