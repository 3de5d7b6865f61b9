package master

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// maxEndpoints is how many addresses a generation may ask for, so that no worker can have the master open more and more.
const maxEndpoints = 256

// listen gives a worker the socket that it asks for, which is opened if need be. defers is whether clients speak first.
func (c *core) listen(w *worker, asked wire.Endpoint, defers bool) {
	g := w.generation
	e := g.means(asked)
	switch {
	case g.uses[e] && g.writes(e) != asked:
		c.refuseTwice(w, asked, e)
		return
	case g.uses[e]:
	case g.sealed:
		c.refuse(w, fmt.Errorf("listen %s: the other workers of this generation do not serve it, and %s", asked, sameForAll))
		return
	case c.answersFor(g) >= maxEndpoints:
		c.refuse(w, fmt.Errorf("listen %s: more than %d addresses", asked, maxEndpoints))
		return
	}
	if c.stage >= leaving || w.state >= wire.Draining {
		c.refuse(w, fmt.Errorf("listen %s: the worker is to stop", asked))
		return
	}
	w.defers = defers
	known := c.endpoints[e]
	if known != nil && known.sockets > 0 {
		c.giveSocket(w, e)
		return
	}
	if known == nil {
		known = &endpoint{}
		c.endpoints[e] = known
		c.emit(openSockets{e, max(g.plan.Workers(), c.sockets()), c.leaving(g)})
	}
	known.waiting = append(known.waiting, w.Ref)
}

// sameForAll is what to do about workers that serve different addresses.
const sameForAll = "all must serve the same: call Handle alike in every worker, and HandleOwn for an address of each " +
	"worker's own"

// refuse tells a worker why it gets no socket.
func (c *core) refuse(w *worker, err error) {
	c.tell(w, wire.Message{Type: wire.Refused, Error: wire.Clip(err.Error())})
}

// answersFor returns how many addresses a generation has to do with: all but those that only others serve. One that
// was asked for counts before it is open.
func (c *core) answersFor(g *generation) (n int) {
	for e := range c.endpoints {
		others := slices.ContainsFunc(c.generations, func(other *generation) bool { return other != g && other.uses[e] })
		if g.uses[e] || !others {
			n++
		}
	}
	return n
}

// giveSocket sends a worker its socket of an endpoint that is open.
func (c *core) giveSocket(w *worker, e wire.Endpoint) {
	g, known := w.generation, c.endpoints[e]
	first := !g.uses[e]
	g.defers[e] = w.defers && (first || g.defers[e])
	g.uses[e], w.asked[e] = true, true
	if first || known.defers != c.clientsBegin(e) {
		c.deferAccept(e)
	}
	given := known.given && (known.shared || w.ID == 0)
	msg, number := wire.Message{Type: wire.Socket, Given: given, Kept: c.Kept}, w.ID
	if e.QUIC {
		number = c.placeOf(w)
		msg.Slot, msg.Kept = number, false
	}
	c.emit(send{ref: w.Ref, msg: msg, socket: &sockets.Ref{Endpoint: e, Socket: number}})
}

// clientsBegin reports whether all who serve an endpoint say that its clients speak first. A server that does, and that
// shares the sockets with others for a while, must not learn of its clients late.
func (c *core) clientsBegin(e wire.Endpoint) bool {
	served := false
	for _, g := range c.generations {
		if g.uses[e] {
			if served = g.defers[e]; !served {
				return false
			}
		}
	}
	return served
}

// deferAccept has the kernel let connections in to the sockets of an endpoint when clients have spoken, if they speak
// first. A worker that was about to close the sockets may have ended that, so it is said again.
func (c *core) deferAccept(e wire.Endpoint) {
	known, on := c.endpoints[e], c.clientsBegin(e)
	if on || known.defers {
		c.emit(deferSockets{e, on})
	}
	known.defers = on
}

// opened notes that sockets are open, or why they are not.
func (c *core) opened(e opened) {
	known := c.endpoints[e.endpoint]
	if known == nil {
		return
	}
	waiting := known.waiting
	known.waiting = nil
	switch {
	case e.err != nil:
		delete(c.endpoints, e.endpoint)
		for _, ref := range waiting {
			if w := c.workers[ref]; w != nil {
				c.refuse(w, e.err)
			}
		}
		if c.stage == opening {
			c.giveUp(e.err)
		}
		return
	case e.info.Endpoint != e.endpoint:
		delete(c.endpoints, e.endpoint)
		c.isSame(e.endpoint, e.info.Endpoint, waiting)
		return
	}
	known.sockets, known.shared, known.address = e.info.Sockets, e.info.Shared, e.info.Address
	known.beside, known.given = e.beside, e.info.Given != ""
	c.tellOfPassed(e.info)
	c.attach(e.endpoint)
	for _, ref := range waiting {
		if w := c.workers[ref]; w != nil && w.state == wire.Starting && !w.ending {
			c.giveSocket(w, e.endpoint)
		}
	}
	c.changed() // who covers serves these, too
	if c.stage == opening && c.attaching == 0 {
		c.openNext()
	}
}

// tellOfPassed logs what has become of sockets that systemd has passed.
func (c *core) tellOfPassed(i sockets.Info) {
	address := i.Endpoint.Network + " " + i.Address
	switch {
	case i.Given != "" && !i.Shared:
		c.log(slog.LevelInfo, "a socket of systemd is served, and beside it one of each other worker",
			"address", address, "name", i.Given)
	case i.Given != "" && i.Alone != nil:
		c.log(slog.LevelInfo, "a socket of systemd is served by all workers", "address", address, "name", i.Given,
			"reason", i.Alone)
	case i.Given != "":
		c.log(slog.LevelInfo, "a socket of systemd is served by all workers", "address", address, "name", i.Given)
	}
	switch {
	case i.Kept > 0 && i.Alone != nil && i.Given == "":
		c.log(slog.LevelWarn, "sockets that systemd has kept go on, and there are no more", "address", address,
			"sockets", i.Kept, "reason", i.Alone)
	case i.Kept > 0 && (i.Given == "" || !i.Shared):
		c.log(slog.LevelInfo, "sockets that systemd has kept go on", "address", address, "sockets", i.Kept)
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
