package master

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// replace makes the next generation the current one, and has the others drain.
func (c *core) replace() {
	ch := c.change
	ch.phase, ch.asked = replacing, false
	c.current = ch.next
	c.changed()
	if c.Steered && c.steering != steeringOff && c.steeredAmong != ch.next.plan.Workers() {
		c.beginSteering(ch.next.spec)
	}
	for _, g := range c.generations {
		for _, e := range g.usesMoreThan(ch.next) {
			if !c.overlaps(e, ch.next) {
				c.emit(quiesceEndpoint{e})
			}
		}
	}
}

// overlaps reports whether sockets were opened for a generation beside those of an endpoint, which listen on some of
// the same. Clients find somebody there in any case, so new connections are kept out only just before those are closed.
func (c *core) overlaps(e wire.Endpoint, g *generation) bool {
	for served := range g.uses {
		if known := c.endpoints[served]; known != nil && slices.Contains(known.beside, e) {
			return true
		}
	}
	return false
}

func (c *core) directed(ch *change, err error) {
	if err != nil {
		c.log(slog.LevelError, "connections still go to the sockets of removed workers", "error", err)
	}
	for _, g := range slices.Clone(c.generations) {
		if g != c.current {
			c.stopGeneration(g)
		}
	}
	c.emit(atStep{StepReplaced})
	c.changed()
	ch.phase, ch.loans = drainingOut, map[loan]*lent{}
	for _, e := range c.open() {
		if e.IsPacket() {
			continue // their own workers read what is queued
		}
		for i := ch.next.plan.Workers(); !c.endpoints[e].shared && i < c.endpoints[e].sockets; i++ {
			ch.loans[loan{e, i}] = &lent{}
			c.lend(loan{e, i})
		}
	}
}

// lent is a socket that is one too many.
type lent struct {
	by    roster.Ref
	tries int
	until time.Time
}

// lend has some worker serve a socket that is one too many until nobody connects to it any more.
func (c *core) lend(what loan) {
	ch := c.change
	l := ch.loans[what]
	if l.tries++; l.tries > lendTries {
		delete(ch.loans, what)
		return
	}
	if c.dirty {
		c.reconcile()
	}
	l.until = c.now.Add(lendLimit)
	if at, ok := c.timers[changeTimer]; !ok || at.After(l.until) {
		c.timers[changeTimer] = l.until
	}
	l.by = c.taker(roster.Ref{Generation: -1, ID: what.socket % len(c.wishes)}, what.endpoint)
	if w := c.workers[l.by]; w != nil {
		w.draining[what] = true
		m := wire.Message{Type: wire.DrainSocket, Endpoint: &what.endpoint, Socket: what.socket}
		c.emit(send{
			ref: l.by, msg: w.generation.written(m),
			socket: &sockets.Ref{Endpoint: what.endpoint, Socket: what.socket},
		})
	}
}

// lendAgain has another worker serve a socket that the one that was to does not serve.
func (c *core) lendAgain(what loan) {
	if ch := c.change; ch != nil && ch.phase == drainingOut && ch.loans[what] != nil {
		c.log(slog.LevelWarn, "a removed worker's socket is not served yet",
			"endpoint", what.endpoint.String(), "socket", what.socket)
		c.lend(what)
	}
}

// lendLate gives sockets to others that have not become empty in time.
func (c *core) lendLate(ch *change) {
	for _, what := range slices.SortedFunc(maps.Keys(ch.loans), func(a, b loan) int { return a.socket - b.socket }) {
		if l := ch.loans[what]; l != nil && !c.now.Before(l.until) {
			c.lendAgain(what)
		}
	}
	for _, l := range ch.loans {
		if at, ok := c.timers[changeTimer]; !ok || l.until.Before(at) {
			c.timers[changeTimer] = l.until
		}
	}
}

// socketDrained notes that nothing comes to a socket any more that is one too many.
func (c *core) socketDrained(w *worker, what loan) {
	if !w.draining[what] {
		c.violates(w, fmt.Errorf("%s of a socket that it was not told to serve", wire.Drained))
		return
	}
	delete(w.draining, what)
	if c.change != nil {
		delete(c.change.loans, what)
	}
}

const (
	lendLimit = 10 * time.Second // for the queue of a socket to be empty for a while
	lendTries = 3
)
