package master

import (
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// advance goes on with the change, or the stop, if what it waits for has come true, and reports whether it has.
func (c *core) advance() bool {
	switch {
	case c.stage == leaving || c.stage == stopping:
		return c.advanceStop()
	case c.stage != running:
		return false
	case c.change == nil:
		return c.nextWish() || c.renewOne()
	}
	switch ch := c.change; ch.phase {
	case settling:
		if len(c.generations) > 1 {
			return false
		}
		c.prepare(ch)
	case launching:
		if ch.next.held && !c.serves(ch.next, ch.step) || !ch.next.held && !ch.next.up {
			return false
		}
		ch.phase = proving
		c.emit(atStep{StepReady})
		c.set(changeTimer, c.MinReady)
	case retiring:
		if !c.isGone(ch.old, ch.step, ch.told) {
			return false
		}
		if ch.err != nil {
			ch.phase = goingBack
			c.goBack(ch)
			return true
		}
		c.log(slog.LevelInfo, "worker replaced", "worker", ch.step, "generation", ch.next.number)
		c.nextStep(ch)
	case replacing:
		if ch.asked || c.steeringSettles() {
			return false
		}
		ch.asked = true
		c.emit(directSockets{ch.next.plan.Workers(), c.steeredEndpoints()})
		c.absent = nil // of packets it has them choose all
	case drainingOut:
		if len(ch.loans) > 0 {
			return false
		}
		c.shrink()
		c.endChange()
	case goingBack:
		return c.stepBack(ch)
	default:
		return false
	}
	return true
}

// serves reports whether a worker of a generation accepts.
func (c *core) serves(g *generation, id int) bool {
	w := c.workers[g.members[id].ref]
	return w != nil && w.state == wire.Serving
}

// changeDue acts on a phase that has lasted long enough, or too long.
func (c *core) changeDue() {
	ch := c.change
	if ch == nil {
		return
	}
	switch ch.phase {
	case proving:
		c.proven(ch)
	case drainingOut:
		c.lendLate(ch)
	case goingBack:
		c.backLate(ch)
	}
}

// proven goes on when a generation, or with Rolling one of its workers, has proven itself.
func (c *core) proven(ch *change) {
	if !ch.next.held {
		c.succeed(ch)
		return
	}
	ch.next.inPlace[ch.step] = true
	c.changed()
	if ch.step == 0 && !maps.Equal(ch.old.uses, ch.next.uses) {
		ch.oneByOne = false
		c.log(slog.LevelWarn, "other addresses are served than before: all old workers go on until all new ones are ready")
	}
	if ch.oneByOne && ch.step < ch.old.plan.Workers()-1 {
		ch.phase, ch.told = retiring, false
		c.emit(stopMember{ch.old.number, ch.step})
		return
	}
	c.nextStep(ch)
}

// nextStep starts the next worker. The last of the old ones stays until the change is certain.
func (c *core) nextStep(ch *change) {
	ch.step++
	if ch.step == ch.next.plan.Workers() {
		c.succeed(ch)
		return
	}
	ch.phase = launching
	c.emit(startMember{ch.next.number, ch.step})
}

// succeed goes on when the next generation has proven itself.
func (c *core) succeed(ch *change) {
	if ch.kind == upgrading {
		c.freeze()
		return
	}
	c.replace()
}

// changeFails gives up the change if it waits for a generation that has failed.
func (c *core) changeFails(g *generation, err error, wasReady bool) {
	ch := c.change
	if ch == nil || ch.next != g || ch.err != nil || c.stage >= leaving {
		return
	}
	switch {
	case ch.phase == proving:
		err = fmt.Errorf("a new worker failed within %v of being ready: %w", c.MinReady, err)
	case ch.phase != launching && ch.phase != retiring:
		return
	case !wasReady:
		err = startError(&procStartError{Err: err})
	case g.held:
		err = fmt.Errorf("a new worker failed while others were replaced: %w", err)
	}
	c.abort(err)
}

// abort gives up the change because of why, and goes back to where it began.
func (c *core) abort(why error) {
	ch := c.change
	ch.err = why
	delete(c.timers, changeTimer)
	if ch.next != nil {
		c.goBack(ch)
		return
	}
	if ch.sockets {
		c.shrink()
	}
	c.endChange()
}

// shrink closes sockets that the current generation has no workers for.
func (c *core) shrink() {
	if c.current == nil || c.stage >= leaving {
		return // the end closes them all
	}
	n, more := c.current.plan.Workers(), false
	for e, known := range c.endpoints {
		if !known.shared && !e.QUIC && known.sockets > n {
			known.sockets, more = n, true
			if each := strings.Split(known.address, ", "); e.Own && len(each) > n {
				known.address = strings.Join(each[:n], ", ")
			}
		}
	}
	if more {
		c.emit(shrinkSockets{n})
	}
}

// endChange ends the change. It is over before the log tells so, since whoever reads that may ask for the next.
func (c *core) endChange() {
	ch := c.change
	c.change = nil
	delete(c.timers, changeTimer)
	if ch.kind == upgrading {
		c.emit(dropImage{ch.number})
	}
	c.trouble = ""
	if ch.err != nil {
		c.trouble = fmt.Sprintf("the last %v failed, the old workers go on: %v", ch.kind, ch.err)
		c.log(slog.LevelError, ch.kind.String()+" failed, the old workers go on",
			"error", ch.err, "generation", ch.old.number)
		ch.reply.send(fmt.Errorf("%v: %w", ch.kind, ch.err))
		return
	}
	g, took := ch.next, c.now.Sub(ch.begun).Round(time.Millisecond)
	args := []any{"generation", g.number, "workers", g.plan.Workers(), "took", took}
	if why := g.plan.Unpinned; why != "" && ch.kind != reloading && ch.kind != renewing { // those keep the plan
		args = append(args, "unpinned", why)
	}
	switch ch.kind {
	case reloading, renewing:
		c.log(slog.LevelInfo, "reloaded", args...)
	case upgrading:
		c.log(slog.LevelInfo, "upgraded", append([]any{"pid", c.PID, "listening", c.addresses()}, args...)...)
	case scaling:
		c.scaled = g.plan.Workers()
		c.log(slog.LevelInfo, "number of workers changed", args...)
	case placing:
		c.log(slog.LevelInfo, "workers placed", args...)
	}
	ch.reply.send(nil)
}
