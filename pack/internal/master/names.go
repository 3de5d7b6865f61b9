package master

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// The core knows an endpoint by the name under which its sockets were opened. The workers of a later generation may
// write it otherwise, such as 127.0.0.1:80 for localhost:80. What they say is translated when it comes, and what they
// are told when it goes: see message and written.

// means returns the endpoint that the workers of a generation mean.
func (g *generation) means(e wire.Endpoint) wire.Endpoint {
	if known, ok := g.as[e]; ok {
		return known
	}
	return e
}

// writes returns an endpoint as the workers of a generation write it.
func (g *generation) writes(e wire.Endpoint) wire.Endpoint {
	for own, known := range g.as {
		if known == e {
			return own
		}
	}
	return e
}

// written returns a message with the endpoints as the workers of a generation write them.
func (g *generation) written(m wire.Message) wire.Message {
	if len(g.as) == 0 {
		return m
	}
	if m.Endpoint != nil {
		e := g.writes(*m.Endpoint)
		m.Endpoint = &e
	}
	m.Unserved = slices.Clone(m.Unserved)
	for i := range m.Unserved {
		m.Unserved[i] = g.writes(m.Unserved[i])
	}
	return m
}

// leaving returns the endpoints that are open and that a generation does not serve.
func (c *core) leaving(g *generation) []wire.Endpoint {
	return slices.DeleteFunc(c.open(), func(e wire.Endpoint) bool { return g.uses[e] })
}

// isSame notes that an endpoint that workers have asked for is one that is open under another name.
func (c *core) isSame(asked, known wire.Endpoint, waiting []roster.Ref) {
	for _, ref := range waiting {
		w := c.workers[ref]
		if w == nil || w.state != wire.Starting || w.ending {
			continue
		}
		g := w.generation
		switch {
		case c.endpoints[known] == nil:
			c.refuse(w, fmt.Errorf("listen %s: %s was closed just now", asked, known))
			continue
		case g.uses[known] && g.means(asked) != known:
			c.refuseTwice(w, asked, known)
			continue
		case g.means(asked) != known:
			g.as[asked] = known
			before := known
			if c.current != nil {
				before = c.current.writes(known)
			}
			if before != asked {
				c.log(slog.LevelInfo, "an address is written otherwise than before, its sockets stay",
					"before", before.String(), "now", asked.String())
			}
		}
		c.giveSocket(w, known)
	}
}

// refuseTwice refuses a worker a socket that it has got under another name.
func (c *core) refuseTwice(w *worker, asked, known wire.Endpoint) {
	c.refuse(w, fmt.Errorf("listen %s: that is what this worker serves as %s: call Handle for one of them",
		asked, w.generation.writes(known)))
}

// renewed notes that a Unix socket was bound anew, or could not be, since its file was lost.
func (c *core) renewed(r sockets.Renewed) {
	switch {
	case r.Err != nil:
		c.log(slog.LevelError, "the file of a Unix socket is gone, or is another's, and nobody can connect",
			"address", r.Endpoint.Address, "error", r.Err)
	case c.endpoints[r.Endpoint] != nil:
		c.log(slog.LevelWarn, "the file of a Unix socket is gone, or is another's: it is bound anew, for new workers",
			"address", r.Endpoint.Address)
		c.rename(r.Endpoint, r.Before)
		c.endpoints[r.Endpoint] = &endpoint{sockets: r.Info.Sockets, shared: r.Info.Shared, address: r.Info.Address}
	}
}

// rename notes that an endpoint is known by another name from now on, since its own is to be opened anew.
func (c *core) rename(e, now wire.Endpoint) {
	known := c.endpoints[e]
	if known == nil {
		return
	}
	delete(c.endpoints, e)
	c.endpoints[now] = known
	for _, g := range c.generations {
		if g.uses[e] {
			delete(g.uses, e)
			g.uses[now] = true
			g.as[g.writes(e)] = now
		}
	}
	for _, w := range c.order {
		if w.asked[e] {
			delete(w.asked, e)
			w.asked[now] = true
		}
	}
	for i := range c.parked {
		if c.parked[i].endpoint == e {
			c.parked[i].endpoint = now
		}
	}
}
