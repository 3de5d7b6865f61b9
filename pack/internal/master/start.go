package master

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// begin starts the pack, or goes on with that of a predecessor.
func (c *core) begin(e begin) {
	c.first, c.toOpen = e.spec, e.endpoints
	if e.state != nil {
		c.restore(e.state)
		return
	}
	if c.Steered {
		c.beginSteering(c.first)
		return
	}
	c.openNext()
}

// openNext opens the next endpoint that is to be open before the first worker starts. When there is none, OnStart runs.
func (c *core) openNext() {
	for len(c.toOpen) > 0 {
		e := c.toOpen[0]
		c.toOpen = c.toOpen[1:]
		if c.endpoints[e] == nil {
			c.endpoints[e] = &endpoint{}
			c.emit(openSockets{e, c.first.plan.Workers(), nil})
			return
		}
	}
	c.stage = hooking
	if c.OnStart {
		c.hookRuns = true
		c.emit(runHook{name: onStart})
		return
	}
	c.started()
}

// hooked notes that a hook has returned.
func (c *core) hooked(e hooked) {
	switch e.name {
	case onReopen:
		if e.err != nil {
			c.log(slog.LevelError, "OnReopen failed", "error", e.err)
		}
		c.hookReturned()
	case onUpgrade:
		c.report(e)
	case onStart:
		c.hookRuns = false
		switch {
		case c.stage != hooking: // it is to stop
		case e.err != nil && c.inherited != nil:
			c.handBack(fmt.Errorf("OnStart: %w", e.err))
		case e.err != nil:
			c.giveUp(fmt.Errorf("OnStart: %w", e.err))
		default:
			c.started()
		}
	}
}

// started goes on when OnStart has returned.
func (c *core) started() {
	c.stage = running
	c.beginWatch()
	if c.inherited != nil {
		c.takeOver()
		return
	}
	c.emit(addTicketKey{})
}

// newTicketKey adds a key, and drops the oldest. With the first the first workers are started.
func (c *core) newTicketKey(key []byte) {
	c.tickets = append([][]byte{key}, c.tickets[:min(len(c.tickets), ticketKeys-1)]...)
	c.ticketsAt = c.now
	c.set(ticketTimer, ticketKeyLife)
	for _, w := range c.order {
		c.tell(w, wire.Message{Type: wire.Tickets, Keys: c.tickets})
	}
	if c.current == nil && c.stage == running {
		c.current = c.launch(c.first, false)
	}
}

const (
	ticketKeyLife = 24 * time.Hour // how long new TLS session tickets are made with one key
	ticketKeys    = 7              // how many are kept to read older ones; clients keep a ticket for a week at most
)

// beginWatch begins to look at workers again and again.
func (c *core) beginWatch() {
	if c.Hang != IgnoreHung {
		c.set(lookTimer, c.BeatEvery)
	}
	if c.Recycle != (Recycle{}) {
		c.set(recycleTimer, c.BeatEvery)
	}
}

// launch starts a generation.
func (c *core) launch(s spec, held bool) *generation {
	c.count++
	g := newGeneration(s, c.count, held)
	c.generations = append(c.generations, g)
	c.emit(launch{generation: g.number, spec: s, held: held})
	return g
}

func newGeneration(s spec, number int, held bool) *generation {
	return &generation{
		spec: s, number: number, held: held, members: make([]member, s.plan.Workers()),
		ready: map[int]bool{}, inPlace: map[int]bool{}, uses: map[wire.Endpoint]bool{}, as: map[wire.Endpoint]wire.Endpoint{},
		defers: map[wire.Endpoint]bool{}, places: map[int]int{},
	}
}

// forget takes a generation out of those that live.
func (c *core) forget(g *generation) {
	c.generations = slices.DeleteFunc(c.generations, func(other *generation) bool { return other == g })
	for _, e := range sorted(g.uses) {
		if known := c.endpoints[e]; known != nil && known.defers != c.clientsBegin(e) {
			c.deferAccept(e)
		}
	}
	c.changed() // its places are free
}

// usesMoreThan returns the endpoints that a generation's workers serve and another's do not.
func (g *generation) usesMoreThan(other *generation) (more []wire.Endpoint) {
	for _, e := range sorted(g.uses) {
		if !other.uses[e] {
			more = append(more, e)
		}
	}
	return more
}

// stopGeneration has the workers of a generation drain, for good.
func (c *core) stopGeneration(g *generation) {
	if !g.stopped {
		g.stopped = true
		c.emit(stopGeneration{g.number})
	}
}

// announce logs that the pack is up.
func (c *core) announce() {
	p := c.current.plan
	args := []any{"pid", c.PID, "workers", p.Workers()}
	if p.Unpinned == "" {
		args = append(args, "cpus", p.All(), "placement", c.Placement)
	} else {
		args = append(args, "unpinned", p.Unpinned)
	}
	args = append(args, "listening", c.addresses(), "took", c.now.Sub(c.begun).Round(time.Millisecond))
	if c.Memory > 0 {
		args = append(args, "memory", fmt.Sprintf("%d MiB each", plan.MemoryShare(c.Memory, p.Workers())>>20))
	}
	c.log(slog.LevelInfo, "pack is up", args...)
	if c.Kept || c.Passed {
		c.emit(settleSockets{})
	}
	if c.Memory > 0 && plan.LittleMemory(c.Memory, p.Workers()) {
		c.log(slog.LevelWarn, "there is little memory for so many workers",
			"limit", c.Memory>>20, "unit", "MiB", "workers", p.Workers())
	}
	for e, known := range c.endpoints {
		if known.shared && !known.given && !strings.HasPrefix(e.Network, "unix") {
			c.log(slog.LevelWarn, "the workers share one listening socket: this system does not spread connections over several")
			break
		}
	}
}

// restore begins with what a predecessor knew.
func (c *core) restore(s *handoff.State) {
	c.stage = adopting
	c.inherited = s
	c.begun = c.now.Add(-s.Begun)
	c.count, c.scaled, c.wish = s.Count, s.Workers, s.Wish
	c.tickets, c.ticketsAt = s.Tickets, c.now.Add(-s.TicketsAge)
	c.timers[ticketTimer] = c.ticketsAt.Add(ticketKeyLife)
	for _, e := range s.Sockets {
		c.endpoints[e.Endpoint] = &endpoint{
			sockets: len(e.Listeners), shared: e.Shared, address: e.Endpoint.Address, given: e.Given != "",
		}
	}
	for _, a := range s.Addresses {
		if known := c.endpoints[a.Endpoint]; known != nil {
			known.address, known.beside = a.Address, a.Beside
		}
	}
	for i := range s.Generations {
		g := c.restoreGeneration(&s.Generations[i])
		c.emit(launch{generation: g.number, spec: g.spec, held: g.held, adopt: true})
		if g.number == s.Goes() {
			c.current = g
		}
	}
	for _, e := range c.open() {
		c.endpoints[e].defers = true // for all that is known
		c.deferAccept(e)
	}
	c.awaitAdoption()
}

func (c *core) restoreGeneration(state *handoff.Generation) *generation {
	g := newGeneration(spec{plan: state.Plan, user: state.User}, state.Number, state.Held)
	g.up, g.stopped, g.sealed = state.Up, state.Stopped, true
	for _, e := range state.Uses {
		g.uses[e] = true
	}
	for _, s := range state.Written {
		g.as[s.Written] = s.Endpoint
	}
	for _, e := range state.Defers {
		g.defers[e] = true
	}
	for _, id := range state.InPlace {
		g.inPlace[id] = true
	}
	if state.Places != nil {
		g.places = state.Places
	}
	c.generations = append(c.generations, g)
	for id, m := range state.Group.Members {
		if m.PID == 0 {
			continue
		}
		ref := roster.Ref{Generation: g.number, ID: id, Attempt: m.Attempts}
		g.members[id] = member{ref: ref, pid: m.PID, started: c.now.Add(-m.Age), failures: m.Failures}
		if how, ok := state.Workers[id]; ok {
			w := c.addWorker(g, ref, m.PID, c.now.Add(-m.Age), 1)
			w.state, w.detached, w.asked = how, true, maps.Clone(g.uses)
			c.detached++
			w.said[wire.Hello] = how > wire.Joining
			w.said[wire.Ready], w.said[wire.Closed] = how == wire.Serving, how == wire.Closing
			if how == wire.Serving {
				w.pulse = c.monitor.Begin(ref)
			}
		}
	}
	return g
}

// adoptTime is how long it may take until workers that were adopted are listened to. Nothing holds it up but a busy
// machine.
const adoptTime = 5 * time.Second

func (c *core) awaitAdoption() {
	c.changed()
	if c.detached == 0 {
		c.adopted()
		return
	}
	c.set(adoptTimer, adoptTime)
}

// adopted goes on when all workers that were adopted are listened to.
func (c *core) adopted() {
	delete(c.timers, adoptTimer)
	for _, w := range c.order {
		w.detached = false
	}
	c.detached = 0
	c.changed()
	if c.stage != adopting {
		return
	}
	c.emit(atStep{StepAdopted})
	if c.Steered {
		c.beginSteering(c.current.spec)
	}
	c.stage = hooking
	if c.OnStart {
		c.hookRuns = true
		c.emit(runHook{name: onStart})
		return
	}
	c.started()
}

// takeOver is the end of an upgrade, in the new program, or of its failure, in the old one.
func (c *core) takeOver() {
	s := c.inherited
	c.inherited = nil
	c.emit(settled{})
	c.changed()
	ch := &change{kind: upgrading, begun: c.now.Add(-s.Change), next: c.current}
	c.adopt(ch)
	if s.Returned == "" {
		ch.phase = replacing
		c.replace()
		return
	}
	ch.err = errors.New(s.Returned)
	ch.old = c.current
	ch.next = c.find(s.Current)
	c.goBack(ch)
}

// handBack has the program that was before become the master again, since this one cannot be, because of why.
func (c *core) handBack(why error) {
	s := c.inherited
	if s.Returned != "" {
		c.giveUp(fmt.Errorf("the old executable cannot go on after a failed upgrade (%s): %w", s.Returned, why))
		return
	}
	c.adopt(&change{kind: upgrading, phase: freezing, err: why, handsBack: true, next: c.current, old: c.find(s.Former)})
	c.freeze()
}
