package master

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/gopherpack/gopherpack/pack/internal/handoff"
)

// errInProgress is why a change is refused during another.
var errInProgress = errors.New("a reload or an upgrade is in progress")

// refused reports why no change may begin now.
func (c *core) refused() error {
	switch {
	case c.stage >= leaving:
		return errors.New("the pack is stopping")
	case c.stage < running || c.current == nil || !c.current.up:
		return errors.New("the pack is not up yet")
	case c.change != nil || c.frozen || c.detached > 0:
		return errInProgress
	}
	return nil
}

// wanted begins a change. If it may not begin now, a call is refused, and a signal's wish is done afterwards.
func (c *core) wanted(e event) {
	ch := &change{begun: c.now}
	wish := handoff.Wish{}
	switch e := e.(type) {
	case reload:
		ch.kind, ch.reply, wish.Reload = reloading, e.reply, true
	case upgradeTo:
		ch.kind, ch.reply, wish.Upgrade = upgrading, e.reply, true
	case scale:
		ch.kind, ch.reply, ch.workers, wish.Workers = scaling, e.reply, e.to, e.by
		if e.to == 0 && c.current != nil {
			ch.workers = c.current.plan.Workers() + e.by
		}
	case cpusChanged:
		ch.kind, ch.cpus = placing, e
	}
	err := c.refused()
	switch {
	case err == nil:
		c.start(ch)
	case c.stage >= leaving || ch.reply != nil:
		if ch.kind != placing {
			c.log(slog.LevelWarn, ch.kind.String()+" refused", "reason", err)
		}
		ch.reply.send(fmt.Errorf("%v: %w", ch.kind, err))
	case ch.kind == placing:
		c.moved = &ch.cpus
	default:
		before := c.wish
		c.wish.Reload, c.wish.Upgrade = c.wish.Reload || wish.Reload, c.wish.Upgrade || wish.Upgrade
		c.wish.Workers += wish.Workers
		if c.wish != before {
			c.log(slog.LevelInfo, ch.kind.String()+" will follow", "reason", err)
		}
	}
}

// nextWish begins a change that was asked for during another, and reports whether there was one. One change serves all
// wishes that it can: all replace the workers.
func (c *core) nextWish() bool {
	if c.refused() != nil {
		return false
	}
	w := c.wish
	c.wish = handoff.Wish{Workers: w.Workers}
	switch {
	case w.Upgrade:
		c.start(&change{kind: upgrading, begun: c.now})
	case w.Workers != 0:
		c.wish = handoff.Wish{}
		c.start(&change{kind: scaling, begun: c.now, workers: c.current.plan.Workers() + w.Workers})
	case w.Reload:
		c.start(&change{kind: reloading, begun: c.now})
	case c.moved != nil:
		ch := &change{kind: placing, begun: c.now, cpus: *c.moved}
		c.moved = nil
		c.start(ch)
	default:
		return false
	}
	return true
}
