package master

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/procgroup"
)

// procStartError is an error of a process that was never ready, as a group tells it of its first.
type procStartError = procgroup.StartError

// step is one of those by which old workers take the places of new ones again.
type step struct {
	generation *generation
	id         int
	admit      bool // the worker is to serve; else it is to be gone
	begun      bool
	told       bool // the group: it starts no process of the worker any more
	stood      bool
}

// goBack has the next generation drain, which does not take over after all. With Rolling, the old workers come back
// first, and one that was asked to drain is gone before that, since it cannot be asked not to.
func (c *core) goBack(ch *change) {
	if c.stage >= leaving {
		return // the stop ends both: until it does, some worker must serve each socket
	}
	rolling := ch.next != nil && ch.next.held
	if rolling {
		clear(ch.next.inPlace)
		c.changed()
	}
	if ch.phase == retiring {
		return // advance comes back here
	}
	ch.phase = goingBack
	ch.steps = nil
	if !rolling {
		return // stepBack ends it
	}
	var missing []int
	for id := range ch.old.plan.Workers() {
		if !c.serves(ch.old, id) {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		c.log(slog.LevelWarn, "going back to the old workers", "error", ch.err,
			"generation", ch.old.number, "missing", len(missing))
	}
	n := ch.next.plan.Workers()
	for id := range n { // room for those that are missing
		if !slices.Contains(missing, id) {
			ch.steps = append(ch.steps, step{generation: ch.next, id: id})
		}
	}
	for _, id := range slices.Backward(missing) { // the last may be draining only yet
		ch.steps = append(ch.steps, step{generation: ch.old, id: id, admit: true})
		if id < n {
			ch.steps = append(ch.steps, step{generation: ch.next, id: id})
		}
	}
}

// stepBack goes on with the steps, and reports whether it could.
func (c *core) stepBack(ch *change) bool {
	if len(ch.steps) == 0 {
		if ch.next != nil {
			c.stopGeneration(ch.next)
		}
		if ch.sockets || ch.kind == upgrading {
			c.shrink()
		}
		c.endChange()
		return true
	}
	s := &ch.steps[0]
	switch {
	case !s.begun && s.admit:
		s.begun = true
		c.set(changeTimer, 2*c.ReadyTimeout)
		c.emit(startMember{s.generation.number, s.id})
	case !s.begun:
		s.begun, s.stood = true, c.serves(s.generation, s.id)
		c.emit(stopMember{s.generation.number, s.id})
	case s.admit && c.serves(s.generation, s.id):
		delete(c.timers, changeTimer)
		ch.steps = ch.steps[1:]
	case !s.admit && c.isGone(s.generation, s.id, s.told):
		if s.stood {
			c.log(slog.LevelInfo, "worker replaced", "worker", s.id, "generation", ch.old.number)
		}
		ch.steps = ch.steps[1:]
	default:
		return false
	}
	return true
}

// memberStopped notes that a group starts no process of a worker any more.
func (c *core) memberStopped(e memberStopped) {
	ch := c.change
	if ch == nil {
		return
	}
	if ch.phase == retiring && ch.old.number == e.generation && ch.step == e.id {
		ch.told = true
	}
	if len(ch.steps) > 0 && ch.steps[0].generation.number == e.generation && ch.steps[0].id == e.id {
		ch.steps[0].told = true
	}
}

// isGone reports whether a worker has no process, and gets none. One that has just ended may be starting again until
// the group was told.
func (c *core) isGone(g *generation, id int, told bool) bool {
	return g.members[id].pid == 0 && (told || c.find(g.number) == nil)
}

// backLate goes on without an old worker that does not come back in time. Its group goes on trying.
func (c *core) backLate(ch *change) {
	if len(ch.steps) == 0 || !ch.steps[0].admit {
		return
	}
	s := ch.steps[0]
	c.log(slog.LevelError, "an old worker is not back yet", "worker", s.id, "generation", s.generation.number,
		"error", fmt.Errorf("not ready within %v", 2*c.ReadyTimeout))
	ch.steps = ch.steps[1:]
}

// freeze has nobody listen to workers, so that this program can be replaced.
func (c *core) freeze() {
	c.change.phase = freezing
	c.emit(atStep{StepFreeze})
	c.uncoverAll()
	c.frozen = true
	c.emit(release{})
}

// released goes on when nobody listens to workers.
func (c *core) released() {
	for _, w := range c.order {
		if !w.detached {
			w.detached = true
			c.detached++
		}
	}
	if c.stage >= leaving { // a stop was asked for meanwhile
		c.thaw()
		return
	}
	c.change.phase = executing
	c.emit(atStep{StepExec}, execute{c.change.number, c.export(), c.change.handsBack})
}

// execFailed goes on with this program after all.
func (c *core) execFailed(e execFailed) {
	ch := c.change
	c.thaw()
	switch {
	case e.late != nil:
		c.stop(e.late)
	case c.stage >= leaving:
	case ch != nil && ch.handsBack:
		c.giveUp(fmt.Errorf("%w; and the previous executable could not be gone back to: %w", ch.err, e.err))
	case ch != nil:
		c.abort(e.err)
	}
}

// thaw has workers listened to again.
func (c *core) thaw() {
	c.frozen = false
	for _, g := range c.generations {
		c.emit(launch{generation: g.number, spec: g.spec, held: g.held, adopt: true})
	}
	if c.forced {
		c.killAll()
	}
	c.awaitAdoption()
}

// export returns what the program that takes the place of this one needs to know. The hand that does it adds what the
// groups and the sockets know.
func (c *core) export() *handoff.State {
	ch := c.change
	s := &handoff.State{
		Version: handoff.Version, Begun: c.now.Sub(c.begun), Change: c.now.Sub(ch.begun),
		Count: c.count, Workers: c.scaled, Wish: c.wish,
		Current: ch.next.number, Former: c.current.number, Tickets: c.tickets, TicketsAge: c.now.Sub(c.ticketsAt),
	}
	if ch.handsBack {
		s.Former, s.Returned = ch.old.number, ch.err.Error()
	}
	for _, g := range c.generations {
		gs := handoff.Generation{
			Number: g.number, Up: g.up, Held: g.held, Stopped: g.stopped, User: g.user, Plan: g.plan,
			Uses: sorted(g.uses), Workers: map[int]wire.State{}, Places: g.places,
		}
		for id := range g.members {
			if g.inPlace[id] {
				gs.InPlace = append(gs.InPlace, id)
			}
			if w := c.workers[g.members[id].ref]; w != nil {
				gs.Workers[id] = w.state
			}
		}
		for _, e := range sorted(g.defers) {
			if g.defers[e] {
				gs.Defers = append(gs.Defers, e)
			}
		}
		for _, e := range sorted(g.as) {
			gs.Written = append(gs.Written, handoff.Written{Written: e, Endpoint: g.as[e]})
		}
		s.Generations = append(s.Generations, gs)
	}
	for _, e := range c.open() {
		s.Addresses = append(s.Addresses, handoff.Address{
			Endpoint: e, Address: c.endpoints[e].address, Beside: c.endpoints[e].beside,
		})
	}
	return s
}
