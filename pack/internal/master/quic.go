package master

import (
	"slices"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// placeOf returns the place of a worker among those of all generations, by which its connections of QUIC find it. It is
// that of the worker's number in its generation for as long as the generation lives.
func (c *core) placeOf(w *worker) int {
	g := w.generation
	if place, ok := g.places[w.ID]; ok {
		return place
	}
	taken, place := c.places(), 0
	for slices.Contains(taken, place) {
		place++
	}
	g.places[w.ID] = place
	return place
}

// places returns all that are taken, in order.
func (c *core) places() (all []int) {
	for _, g := range c.generations {
		for _, place := range g.places {
			all = append(all, place)
		}
	}
	slices.Sort(all)
	return all
}

// quicPlaces is to whose places packets of QUIC come.
type quicPlaces struct {
	fresh []int // new connections
	known []int // others
}

// directQUIC has new connections of QUIC come to workers that serve, and others to where they began.
func (c *core) directQUIC() {
	if !slices.ContainsFunc(c.open(), func(e wire.Endpoint) bool { return e.QUIC }) {
		return
	}
	p := quicPlaces{known: c.places()}
	for _, wish := range c.wishes {
		if g := c.find(wish.Server.Generation); wish.Server != (roster.Ref{}) && g != nil {
			if place, ok := g.places[wish.Server.ID]; ok {
				p.fresh = append(p.fresh, place)
			}
		}
	}
	slices.Sort(p.fresh)
	if len(p.fresh) == 0 || c.quic != nil && slices.Equal(p.fresh, c.quic.fresh) && slices.Equal(p.known, c.quic.known) {
		return
	}
	c.quic = &p
	c.emit(directQUIC{p})
}
