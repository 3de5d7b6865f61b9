package drain

import (
	"context"
	"sync/atomic"
	"time"
)

// count is how many connections of a server are open.
type count struct {
	n        atomic.Int64
	load     Load // is told, too; nil if nobody is
	requests bool // what is served are requests, which somebody else counts
}

func (c *count) add(n int) {
	c.n.Add(int64(n))
	if c.load == nil {
		return
	}
	c.load.Open(n)
	if n > 0 && !c.requests {
		c.load.Served(uint64(n))
	}
}

// movable notes that so many more can be handed over, and are kept alive.
func (c *count) movable(n int) {
	if c.load != nil {
		c.load.Movable(n)
	}
}

// sheds reports whether one of those is to be handed over now.
func (c *count) sheds() bool { return c.load != nil && c.load.Sheds() }

// stays takes that back.
func (c *count) stays() { c.load.Stays() }

func (c *count) open() int { return int(c.n.Load()) }

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
