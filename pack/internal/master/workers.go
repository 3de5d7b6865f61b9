package master

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

func (e *workerError) Error() string { return e.text }

// connected notes that a worker process is listened to.
func (c *core) connected(e connected) {
	if w := c.workers[e.ref]; w != nil {
		if w.detached {
			w.detached = false
			c.detached--
			c.join(w)
			c.askForTally(w)
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
	if m := &w.generation.members[ref.ID]; m.ref == ref {
		m.silent = true
	}
	c.removeWorker(w)
	c.closeUnused()
}

// violates has a worker killed that does what no worker of ours does.
func (c *core) violates(w *worker, err error) {
	if w == nil || w.ending {
		return
	}
	w.hostile = !w.said[wire.Failed] // its end says why, unless it has given a reason of its own
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
	w.generation.members[w.ID].mute = false
	m := e.msg
	if err := errors.Join(w.meter.Count(m.Type, w.state, c.now), wire.MaySend(m.Type, w.state, w.said)); err != nil {
		c.dropParcel(e.parcel)
		c.violates(w, err)
		return
	}
	w.said[m.Type] = true
	if m.Endpoint != nil && m.Type != wire.Listen {
		known := w.generation.means(*m.Endpoint)
		m.Endpoint, e.msg.Endpoint = &known, &known
	}
	switch m.Type {
	case wire.Hello:
		c.hello(w, m.Version)
	case wire.Listen:
		c.listen(w, *m.Endpoint, m.Defer)
	case wire.Ready:
		c.ready(w)
	case wire.Beat:
		if goesOn, told := c.monitor.Beat(w.Ref, *m.Vitals); goesOn {
			c.goesOn(w, told)
		}
	case wire.Failed:
		c.emit(fail{w.Ref, &workerError{m.Error}})
		if w.state == wire.Serving { // it goes on until it is told, for a second at most: others take over first
			c.terminate(w.Ref)
		}
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
		if !w.handsOver() {
			c.violates(w, fmt.Errorf("%s, and was not asked", m.Type))
		}
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
	c.askForTally(w)
}

// askForTally has a worker report what it has to do.
func (c *core) askForTally(w *worker) {
	if w.state > wire.Joining {
		c.emit(send{ref: w.Ref, msg: wire.Message{Type: wire.Tally}, tally: true})
	}
}

// ready notes that a worker accepts.
func (c *core) ready(w *worker) {
	before := w.state
	w.state = roster.Next(w.state, roster.SaidReady)
	if w.state == before {
		return // it has been told to drain meanwhile
	}
	g := w.generation
	for _, e := range sorted(g.uses) {
		if !w.asked[e] { // connections to its socket would wait for ever
			c.condemn(w, fmt.Errorf("it does not serve %s, as the other workers of its generation do, and %s",
				g.writes(e), sameForAll))
			return
		}
	}
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
			c.closeUnasked(g)
			c.announce()
		}
	}
}

// asksToStop has a worker replaced that was told to stop, by a signal, and does nothing about it by itself: it cannot
// know whether the master was told, too.
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

// terminate asks a worker to drain. One that has not come as far as Run has no sockets, and nothing to drain. One whose
// control socket has ended cannot be asked; it has ended, or will.
func (c *core) terminate(ref roster.Ref) {
	w := c.workers[ref]
	if g := c.find(ref.Generation); w == nil && g != nil && g.members[ref.ID].ref == ref && g.members[ref.ID].silent {
		return // it is ending already, or drains as it does when the master is gone
	}
	if w == nil || w.state == wire.Joining {
		c.emit(kill{ref, errors.New("cannot ask it to end: it has not come as far as Run")})
		return
	}
	if w.ending || w.state >= wire.Draining {
		return
	}
	w.state = roster.Next(w.state, roster.WasTold)
	final := c.stage == stopping
	m := wire.Message{Type: wire.Drain, Final: final, HandOver: c.stage < leaving}
	if !final && c.current != nil {
		m.Unserved = append(w.generation.usesMoreThan(c.current), c.onlyOf(w)...)
	}
	c.changed()
	if c.dirty { // whoever covers for it learns of that before its sockets are closed
		c.reconcile()
	}
	c.tell(w, m)
	if c.stage == leaving { // the others were told before
		c.tell(w, wire.Message{Type: wire.EndHandover})
	}
}

// onlyOf returns the endpoints of packets of which a worker alone has its socket, and no other will: the pack has become
// smaller.
func (c *core) onlyOf(w *worker) (all []wire.Endpoint) {
	if w.ID < c.current.plan.Workers() {
		return nil
	}
	for _, e := range sorted(w.generation.uses) {
		if known := c.endpoints[e]; e.IsPacket() && !e.QUIC && known != nil && !known.shared && c.current.uses[e] {
			all = append(all, e)
		}
	}
	return all
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

// quiesce keeps new connections out of a worker's sockets, and of those that it serves for others, if nobody else
// serves them.
func (c *core) quiesce(w *worker) {
	if c.stage != stopping {
		var unserved []wire.Endpoint
		if c.current != nil {
			unserved = w.generation.usesMoreThan(c.current)
		}
		if len(unserved) == 0 {
			c.tell(w, wire.Message{Type: wire.Quiesced, Error: "others serve the sockets"})
			return
		}
		c.emit(quiesceSockets{ref: w.Ref, endpoints: unserved})
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
