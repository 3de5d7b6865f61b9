package master

import (
	"log/slog"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// parkedConn is a connection that was handed over, and that nobody can take yet.
type parkedConn struct {
	from     roster.Ref
	endpoint wire.Endpoint
	parcel   parcel
	until    time.Time
}

// parkTime is how long a connection waits for a worker that takes it, such as when all have crashed.
const parkTime = 5 * time.Second

// handover passes on a connection that a worker hands over.
func (c *core) handover(w *worker, e message) {
	if e.lost {
		c.logWorker(slog.LevelWarn, w,
			"a connection was lost that a worker handed over: the master has no descriptor left (ulimit -n)")
		return
	}
	if c.dirty {
		c.reconcile()
	}
	c.forward(w.Ref, *e.msg.Endpoint, e.parcel)
}

// forward gives a connection to a worker that accepts: the one in the place of the one that it comes from, if that can
// be. While workers are let go of they can still be told, and those who hand over are waited for.
func (c *core) forward(from roster.Ref, e wire.Endpoint, p parcel) {
	if c.stage >= stopping || c.stage == leaving && c.current == nil {
		c.loseConn(from, p)
		return
	}
	if to := c.taker(from, e); to != (roster.Ref{}) && c.detached == 0 {
		c.emit(forward{to, from, e, c.workers[to].generation.writes(e), p})
		return
	}
	c.parked = append(c.parked, parkedConn{from, e, p, c.now.Add(parkTime)})
	if _, ok := c.timers[parkTimer]; !ok {
		c.set(parkTimer, parkTime)
	}
}

// taker returns who takes a connection of a worker: who is in its place if it drains, the one with fewest if it serves;
// zero if nobody does.
func (c *core) taker(from roster.Ref, e wire.Endpoint) roster.Ref {
	if w := c.workers[from]; w != nil && w.state == wire.Serving {
		return c.lightest(w, e)
	}
	can := func(r roster.Ref) bool {
		return r != (roster.Ref{}) && r != from && c.workers[r] != nil && c.workers[r].generation.uses[e]
	}
	if from.ID < len(c.wishes) && can(c.wishes[from.ID].Server) {
		return c.wishes[from.ID].Server
	}
	for range c.wishes {
		c.turn++
		if r := c.wishes[c.turn%len(c.wishes)].Server; can(r) {
			return r
		}
	}
	return roster.Ref{}
}

// retryParked gives parked connections to who can take them now.
func (c *core) retryParked() {
	parked := c.parked
	c.parked = nil
	for _, p := range parked {
		if to := c.taker(p.from, p.endpoint); to != (roster.Ref{}) && c.detached == 0 {
			c.emit(forward{to, p.from, p.endpoint, c.workers[to].generation.writes(p.endpoint), p.parcel})
		} else {
			c.parked = append(c.parked, p)
		}
	}
}

// loseParked gives up on connections that have waited for too long.
func (c *core) loseParked() {
	c.parked = slices.DeleteFunc(c.parked, func(p parkedConn) bool {
		late := c.stage >= stopping || !c.now.Before(p.until)
		if late {
			c.loseConn(p.from, p.parcel)
		}
		return late
	})
	if len(c.parked) > 0 {
		c.timers[parkTimer] = c.parked[0].until
	}
}

func (c *core) loseConn(from roster.Ref, p parcel) {
	c.log(slog.LevelWarn, "a connection was lost that a worker handed over: no worker could take it", "worker", from.ID)
	c.dropParcel(p)
}

func (c *core) dropParcel(p parcel) {
	if p != nil {
		c.emit(drop{p})
	}
}
