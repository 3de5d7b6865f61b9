package master

import (
	"log/slog"
	"time"

	"github.com/gopherpack/gopherpack/internal/scoreboard"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// Connections that are kept alive stay where they came to, by the kernel's hash of their ports or since a worker was
// away, and so one worker may have many more than another. Those that are idle are handed over to whoever has fewest,
// as in a drain. A worker that is hogged keeps none that it can hand over.

const (
	// balanceEvery is how often it is looked whether somebody has more than its share, which is acted upon if it is found
	// twice, and nothing was on its way in between.
	balanceEvery = 300 * time.Millisecond

	// unevenness is which part of its share a worker may be off, and unevennessSteered if connections are steered, for
	// which there were reasons.
	unevenness        = 1. / 32
	unevennessSteered = 1. / 4
)

// weigh begins to balance if somebody has more connections than its share.
func (c *core) weigh() {
	if c.surplus == nil {
		c.surplus = c.findSurplus()
		c.lookAgain()
	}
}

// lookAgain has what workers report read after a while, if somebody has more than its share.
func (c *core) lookAgain() {
	c.onTheirWay = false
	if c.surplus != nil {
		c.set(balanceTimer, balanceEvery)
	}
}

// balance has those shed connections that have had too many for a while.
func (c *core) balance() {
	before, moved := c.surplus, c.onTheirWay
	c.surplus = c.findSurplus()
	c.lookAgain()
	if moved {
		return // some may be counted by nobody, or are still to be shed
	}
	for _, w := range c.order {
		if n := min(before[w.Ref], c.surplus[w.Ref], wire.MaxShed); n > 0 {
			w.shedding = true
			c.logWorker(slog.LevelDebug, w, "worker hands connections over, others have less to do", "connections", n)
			c.tell(w, wire.Message{Type: wire.Shed, Conns: n})
		}
	}
}

// tallied notes what workers report.
func (c *core) tallied(all map[roster.Ref]scoreboard.Report) {
	for _, w := range c.order {
		w.tally = all[w.Ref]
	}
}

// findSurplus returns by how many connections workers have more than their share; nil if all is well, or something else
// goes on.
func (c *core) findSurplus() map[roster.Ref]int {
	if c.NoRebalance || c.stage != running || c.frozen || c.change != nil || c.detached > 0 {
		return nil
	}
	servers := c.servers()
	if len(servers) < 2 {
		return nil
	}
	tolerance := unevenness
	if c.steering != steeringOff {
		tolerance = unevennessSteered
	}
	loads := make([]roster.Load, len(servers))
	for i, w := range servers {
		loads[i] = roster.Load{Conns: int(w.tally.Movable), Hogged: w.tally.Hogged}
	}
	var all map[roster.Ref]int
	for i, n := range roster.Surplus(loads, tolerance) {
		if all == nil {
			all = map[roster.Ref]int{}
		}
		all[servers[i].Ref] = n
	}
	return all
}

// servers returns the workers that serve, but not those that have failed lately: what they got would be lost if they did
// again.
func (c *core) servers() (all []*worker) {
	for _, wish := range c.wishes {
		w := c.workers[wish.Server]
		if w != nil && w.generation.members[w.ID].failuresAt(c.now) == 0 {
			all = append(all, w)
		}
	}
	return all
}

// lightest returns who is to have a connection of a worker that serves: who lacks most. It is that worker itself if there
// is no other.
func (c *core) lightest(from *worker, e wire.Endpoint) roster.Ref {
	lacks := func(w *worker) int { return -c.surplus[w.Ref] }
	best := from
	for _, w := range c.servers() {
		if w == from || !w.generation.uses[e] {
			continue
		}
		if best == from || lacks(w) > lacks(best) || lacks(w) == lacks(best) && w.tally.Movable < best.tally.Movable {
			best = w
		}
	}
	if c.surplus != nil {
		c.surplus[best.Ref]++
	}
	c.onTheirWay = true
	return best.Ref
}
