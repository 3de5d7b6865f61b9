package master

import (
	"fmt"
	"slices"

	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// maxEndpoints is how many addresses a generation may ask for, so that no worker can have the master open more and more.
const maxEndpoints = 256

// listen gives a worker the socket that it asks for, which is opened if need be.
func (c *core) listen(w *worker, e wire.Endpoint) {
	g := w.generation
	if !g.uses[e] {
		var err error
		switch {
		case g.sealed:
			err = fmt.Errorf("listen %s: the other workers of this generation do not serve it, and all must serve the same", e)
		case c.answersFor(g) >= maxEndpoints:
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
	w.generation.uses[e], w.asked[e] = true, true
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
