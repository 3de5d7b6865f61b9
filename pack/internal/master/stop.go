package master

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

const (
	// handoverLimit is how long connections may take that are on their way to another worker when the pack is to stop.
	handoverLimit = 2 * time.Second

	// killTime is how long processes may take to end when they were killed, and forceTime likewise when a second signal
	// wants that.
	killTime  = 5 * time.Second
	forceTime = time.Second
)

// stop stops the pack, since a signal or a caller wants it.
func (c *core) stop(why error) {
	if c.stage >= leaving {
		return
	}
	c.why = why
	c.log(slog.LevelInfo, "stopping", "reason", why, "workers", len(c.workers), "timeout", c.ShutdownTimeout)
	c.leave(why)
}

// giveUp ends a pack that cannot go on, because of why.
func (c *core) giveUp(why error) {
	c.failure = cmp.Or(c.failure, why)
	c.leave(why)
}

// leave begins the end: a change is given up, and connections that are on their way from one worker to another arrive
// first, since those to whom they go are about to drain, too.
func (c *core) leave(why error) {
	if c.stage >= leaving {
		return
	}
	c.stage = leaving
	c.begun = c.now
	if ch := c.change; ch != nil {
		c.change = nil
		ch.reply.send(fmt.Errorf("%v: %w", ch.kind, why))
		if ch.kind == upgrading {
			c.emit(dropImage{ch.number})
		}
	}
	c.emit(endHooks{})
	c.uncoverGiven()
	clear(c.timers)
	c.set(stopTimer, handoverLimit)
	for _, w := range c.order {
		if w.handsOver() {
			c.tell(w, wire.Message{Type: wire.EndHandover})
		}
	}
}

// advanceStop goes on with the stop if what it waits for has come true, and reports whether it has.
func (c *core) advanceStop() bool {
	if c.frozen || c.detached > 0 { // nobody would hear anything
		return false
	}
	if c.stage == leaving {
		for _, w := range c.order {
			if w.handsOver() && !w.ending && !w.said[wire.HandoverEnded] && !w.said[wire.End] {
				return false
			}
		}
		c.beginStop()
		return true
	}
	if len(c.generations) == 0 && !c.hookRuns {
		c.finish()
		return true
	}
	return false
}

// beginStop has all workers drain. They are told that nobody takes over their sockets.
func (c *core) beginStop() {
	c.stage = stopping
	c.loseParked()
	c.set(stopTimer, c.ShutdownTimeout) // of OnStart, if there are no workers
	if len(c.generations) > 0 {
		c.set(stopTimer, c.ShutdownTimeout+killTime)
	}
	if c.forced {
		c.set(stopTimer, forceTime)
	}
	for _, g := range c.generations {
		c.stopGeneration(g)
	}
	c.closeUnused()
}

// stopDue goes on with a stop that has taken long enough.
func (c *core) stopDue() {
	switch {
	case c.stage == leaving && c.frozen:
		c.set(stopTimer, handoverLimit)
	case c.stage == leaving:
		c.adopted()
		c.beginStop()
	default:
		c.finish()
	}
}

// force ends the pack at once, since a second signal wants it.
func (c *core) force() {
	if c.forced {
		c.finish()
		return
	}
	c.forced = true
	c.log(slog.LevelWarn, "second signal, killing the workers")
	c.killAll()
	if c.stage < leaving {
		c.leave(errors.New("a second signal"))
	}
	c.set(stopTimer, forceTime)
	if c.stage == leaving && !c.frozen {
		c.beginStop()
	}
	if c.hookRuns && len(c.generations) == 0 {
		c.finish() // it is not waited for
	}
}

func (c *core) killAll() {
	for _, g := range c.generations {
		c.emit(killGeneration{g.number})
	}
}

// finish reports the end.
func (c *core) finish() {
	if c.stage == over {
		return
	}
	c.stage = over
	err := c.failure
	switch {
	case c.forced:
		err = errors.New("stopped by force, by a second signal")
	case err == nil && len(c.generations) > 0:
		err = fmt.Errorf("workers were left that do not end, %v after they were killed", killTime)
	case err == nil:
		c.log(slog.LevelInfo, "stopped", "took", c.now.Sub(c.begun).Round(time.Millisecond), "cut", c.cut)
		if c.Managed {
			c.emit(notify{systemd.Message{Status: "stopped"}})
		}
	}
	c.emit(done{err})
}
