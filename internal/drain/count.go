package drain

import (
	"context"
	"net"
	"sync"
	"time"
)

// count is how many connections of a server are open.
type count struct {
	mu       sync.Mutex
	n        int
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

// countedTCP, countedUnix and countedConn tell when they are closed. Embedding the concrete type keeps ReadFrom
// (sendfile, splice), SyscallConn, CloseWrite and the rest.
type countedTCP struct {
	*net.TCPConn
	closed func()
}

func (c *countedTCP) Close() error {
	c.closed()
	return c.TCPConn.Close()
}

type countedUnix struct {
	*net.UnixConn
	closed func()
}

func (c *countedUnix) Close() error {
	c.closed()
	return c.UnixConn.Close()
}

type countedConn struct {
	net.Conn
	closed func()
}

// NetConn returns the connection that was accepted, whose type says more.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
