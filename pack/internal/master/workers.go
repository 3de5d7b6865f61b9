package master

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/procgroup"
)

// workerError is why a worker could not serve, in its own words.
type workerError struct{ text string }

func (e *workerError) Error() string { return e.text }

// maxEndpoints is how many addresses a generation may serve, so that no worker can have the master open more and more.
const maxEndpoints = 256

// connected notes that a worker process is listened to.
func (c *core) connected(e connected) {
	if w := c.workers[e.ref]; w != nil {
		if w.detached {
			w.detached = false
			c.detached--
			c.join(w)
			if c.detached == 0 {
				c.adopted()
			}
		}
		return
	}
	if g := c.find(e.ref.Generation); g != nil {
		c.addWorker(g, e.ref, e.pid, e.started, e.share)
	}
}

// gone notes that a worker says nothing any more: it has ended, or is about to.
func (c *core) gone(ref roster.Ref) {
	w := c.workers[ref]
	if w == nil || c.frozen {
		return
	}
	c.removeWorker(w)
	c.closeUnused()
}

// violates has a worker killed that does what no worker of ours does.
func (c *core) violates(w *worker, err error) {
	if w == nil || w.ending {
		return
	}
	c.condemn(w, fmt.Errorf("it does not keep to the protocol: %w", err))
}

// condemn has a worker killed because of why. Nothing that it says counts from here on.
func (c *core) condemn(w *worker, why error) {
	w.ending = true
	if w.state == wire.Serving {
		w.state = wire.Draining // others serve its queue at once
	}
	c.emit(fail{w.Ref, why}, kill{w.Ref, why})
	c.changed()
}

// message does what a worker's message asks for.
func (c *core) message(e message) {
	w := c.workers[e.ref]
	if w == nil || w.ending {
		c.dropParcel(e.parcel)
		return
	}
	m := e.msg
	if err := errors.Join(w.meter.Count(m.Type, c.now), wire.MaySend(m.Type, w.state, w.said)); err != nil {
		c.dropParcel(e.parcel)
		c.violates(w, err)
		return
	}
	w.said[m.Type] = true
	switch m.Type {
	case wire.Hello:
		c.hello(w, m.Version)
	case wire.Listen:
		c.listen(w, *m.Endpoint)
	case wire.Ready:
		c.ready(w)
	case wire.Beat:
		if c.monitor.Beat(w.Ref, *m.Vitals) {
			c.logWorker(slog.LevelInfo, w, "worker goes on")
			c.changed()
		}
	case wire.Failed:
		c.emit(fail{w.Ref, &workerError{m.Error}})
	case wire.Stopping:
		c.asksToStop(w)
	case wire.Quiesce:
		c.quiesce(w)
	case wire.Closed:
		w.state = roster.Next(w.state, roster.SaidClosed)
		c.changed()
		c.closeUnused()
	case wire.Handover:
		c.handover(w, e)
	case wire.HandoverEnded:
		c.changed()
	case wire.Covered:
		c.couldNotServe(w, loan{*m.Endpoint, m.Socket}, m.Error)
	case wire.Drained:
		c.socketDrained(w, loan{*m.Endpoint, m.Socket})
	case wire.End:
		c.ended(w, m.Cut)
	}
}

func (c *core) hello(w *worker, version int) {
	if version != wire.Version {
		c.condemn(w, fmt.Errorf("the worker speaks version %d of the protocol, this master %d", version, wire.Version))
		return
	}
	w.state = roster.Next(w.state, roster.SaidHello)
	c.tell(w, wire.Message{Type: wire.Tickets, Keys: c.tickets})
	c.join(w)
}

// ready notes that a worker accepts.
func (c *core) ready(w *worker) {
	before := w.state
	w.state = roster.Next(w.state, roster.SaidReady)
	if w.state == before {
		return // it has been told to drain meanwhile
	}
	g := w.generation
	g.sealed = true
	if g == c.current {
		delete(c.stuck, w.ID)
	}
	w.pulse = c.monitor.Begin(w.Ref)
	c.emit(proven{w.Ref})
	c.changed()
	if g.up {
		c.logWorker(slog.LevelInfo, w, "worker ready", "generation", g.number, "attempt", w.Attempt)
		return
	}
	g.ready[w.ID] = true
	if len(g.ready) == g.plan.Workers() {
		g.up = true
		if g == c.current && c.stage == running {
			c.announce()
		}
	}
}

// asksToStop has a worker replaced that was told to stop, by a signal, and does nothing about it by itself: it cannot know
// whether the master was told, too.
func (c *core) asksToStop(w *worker) {
	if w.state >= wire.Draining || c.stage >= leaving {
		return
	}
	if w.state == wire.Starting {
		c.logWorker(slog.LevelInfo, w, "replacing worker", "reason", "it was told to stop by a signal")
		c.emit(restart{w.Ref})
		return
	}
	w.renew = "it was told to stop by a signal"
}

// terminate asks a worker to drain. One that has not come as far as Run has no sockets, and nothing to drain.
func (c *core) terminate(ref roster.Ref) {
	w := c.workers[ref]
	if w == nil || w.state == wire.Joining {
		c.emit(kill{ref, errors.New("cannot ask it to end: it has not come as far as Run")})
		return
	}
	if w.ending || w.state >= wire.Draining {
		return
	}
	w.state = roster.Next(w.state, roster.WasTold)
	final := c.stage == stopping
	m := wire.Message{Type: wire.Drain, Final: final, HandOver: !final}
	if !final && c.current != nil {
		m.Unserved = w.generation.usesMoreThan(c.current)
	}
	c.changed()
	if c.dirty { // whoever covers for it learns of that before its sockets are closed
		c.reconcile()
	}
	c.tell(w, m)
}

// ended notes what a worker had to cut.
func (c *core) ended(w *worker, cut int) {
	if c.stage == stopping {
		c.cut += cut
	}
	if cut > 0 {
		c.logWorker(slog.LevelWarn, w, "worker cut connections that had not finished", "connections", cut)
	}
	c.closeUnused()
}

// quiesce keeps new connections out of a worker's sockets, and of those that it serves for others, if nobody else serves them.
func (c *core) quiesce(w *worker) {
	if c.stage != stopping {
		c.tell(w, wire.Message{Type: wire.Quiesced, Error: "others serve the sockets"})
		return
	}
	ids := []int{w.ID}
	for i, cover := range c.covers {
		if cover.by == w.Ref {
			ids = append(ids, i)
		}
	}
	c.emit(quiesceSockets{ref: w.Ref, ids: ids, final: true})
}

func (c *core) quiesced(e quiesced) {
	m := wire.Message{Type: wire.Quiesced}
	if e.err != nil {
		m.Error = wire.Clip(e.err.Error())
	}
	c.tell(c.workers[e.ref], m)
}

// listen gives a worker the socket that it asks for, which is opened if need be.
func (c *core) listen(w *worker, e wire.Endpoint) {
	g := w.generation
	if !g.uses[e] {
		var err error
		switch {
		case g.sealed:
			err = fmt.Errorf("listen %s: the other workers of this generation do not serve it, and all must serve the same", e)
		case len(g.uses) >= maxEndpoints:
			err = fmt.Errorf("listen %s: more than %d addresses", e, maxEndpoints)
		}
		if err != nil {
			c.tell(w, wire.Message{Type: wire.Refused, Error: wire.Clip(err.Error())})
			return
		}
	}
	if c.stage >= leaving || w.state >= wire.Draining {
		c.tell(w, wire.Message{Type: wire.Refused, Error: fmt.Sprintf("listen %s: the worker is to stop", e)})
		return
	}
	known := c.endpoints[e]
	if known != nil && known.sockets > 0 {
		c.giveSocket(w, e)
		return
	}
	if known == nil {
		known = &endpoint{}
		c.endpoints[e] = known
		c.emit(openSockets{e, max(g.plan.Workers(), c.sockets())})
	}
	known.waiting = append(known.waiting, w.Ref)
}

// giveSocket sends a worker its socket of an endpoint that is open.
func (c *core) giveSocket(w *worker, e wire.Endpoint) {
	w.generation.uses[e] = true
	c.emit(send{ref: w.Ref, msg: wire.Message{Type: wire.Socket}, socket: &sockets.Ref{Endpoint: e, Socket: w.ID}})
}

// opened notes that sockets are open, or why they are not.
func (c *core) opened(e opened) {
	known := c.endpoints[e.info.Endpoint]
	if known == nil {
		return
	}
	waiting := known.waiting
	known.waiting = nil
	if e.err != nil {
		delete(c.endpoints, e.info.Endpoint)
		for _, ref := range waiting {
			c.tell(c.workers[ref], wire.Message{Type: wire.Refused, Error: wire.Clip(e.err.Error())})
		}
		if c.stage == opening {
			c.giveUp(e.err)
		}
		return
	}
	known.sockets, known.shared, known.address = e.info.Sockets, e.info.Shared, e.info.Address
	c.attach(e.info.Endpoint)
	for _, ref := range waiting {
		if w := c.workers[ref]; w != nil && w.state == wire.Starting && !w.ending {
			c.giveSocket(w, e.info.Endpoint)
		}
	}
	c.changed() // who covers serves these, too
	if c.stage == opening && c.attaching == 0 {
		c.openNext()
	}
}

// sockets returns how many there are of each endpoint, or are to be.
func (c *core) sockets() int {
	n := 0
	for _, e := range c.endpoints {
		if !e.shared {
			n = max(n, e.sockets)
		}
	}
	return n
}

// process follows the processes of a generation.
func (c *core) process(e process) {
	g := c.find(e.ref.Generation)
	if g == nil || e.ref.ID >= len(g.members) {
		return
	}
	m := &g.members[e.ref.ID]
	args := []any{"worker", e.ref.ID, "pid", e.pid, "generation", g.number}
	log := func(level slog.Level, msg string, more ...any) { c.log(level, msg, append(args, more...)...) }
	switch e.kind {
	case procgroup.Started:
		m.ref, m.pid, m.started = e.ref, e.pid, c.now
		log(slog.LevelDebug, "worker started", "attempt", e.ref.Attempt)
	case procgroup.Killed:
		if w := c.workers[e.ref]; w == nil || !w.ending { // else the end tells why
			log(slog.LevelWarn, "killing worker", "reason", e.err)
		}
	case procgroup.Failed, procgroup.Stopped:
		if w := c.workers[e.ref]; w != nil {
			c.removeWorker(w)
		}
		m.ref, m.pid, m.started = roster.Ref{}, 0, time.Time{}
		c.changed()
		if e.kind == procgroup.Failed {
			c.failed(g, m, e, log)
		} else if e.err != nil {
			log(slog.LevelWarn, "worker stopped", "error", e.err, "uptime", e.uptime.Round(time.Millisecond))
		} else {
			log(slog.LevelDebug, "worker stopped", "uptime", e.uptime.Round(time.Millisecond))
		}
		c.closeUnused()
	}
}

// failed notes that a process has ended unasked, or could not be started.
func (c *core) failed(g *generation, m *member, e process, log func(slog.Level, string, ...any)) {
	m.failures, m.failed = e.failures, c.now
	wasReady := g.up || g.ready[e.ref.ID]
	delete(g.ready, e.ref.ID)
	if g != c.current { // a change wants all of them
		c.changeFails(g, e.err, wasReady)
	}
	if e.retry < 0 || !g.up && g != c.current {
		return // the end of the group or the change says why, or everything is being stopped
	}
	log(slog.LevelError, "worker failed", "error", e.err, "uptime", e.uptime.Round(time.Millisecond), "failures", e.failures,
		"next", e.retry.Round(time.Millisecond))
}

// groupEnded forgets a generation whose workers are gone, and closes what only it served.
func (c *core) groupEnded(e groupEnded) {
	g := c.find(e.generation)
	if g == nil {
		return
	}
	for _, w := range append([]*worker(nil), c.order...) {
		if w.generation == g {
			c.removeWorker(w)
		}
	}
	c.forget(g)
	c.changed()
	switch {
	case g != c.current && e.err != nil:
		c.changeFails(g, e.err, false)
	case g != c.current && g.up:
		c.log(slog.LevelInfo, "generation has drained", "generation", g.number)
	case g == c.current && c.stage < leaving:
		c.giveUp(startError(e.err))
	}
	c.closeUnused()
}

// startError says why a generation did not come up, in the words of the worker if it said anything.
func startError(err error) error {
	start, ok := errors.AsType[*procgroup.StartError](err)
	if !ok {
		return err
	}
	if told, ok := errors.AsType[*workerError](start.Err); ok {
		return told
	}
	return fmt.Errorf("a worker failed before it was ready: %w", start.Err)
}
