package master

import (
	"log/slog"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// steeringState is how far the steering is.
type steeringState int

const (
	steeringOff steeringState = iota
	steeringStarts
	steeringOn
)

// Where a worker reports that reports nowhere.
const (
	slotNone    = -1
	slotPending = -2 // yet
)

// beginSteering has it begin, or begin anew for the workers of another plan.
func (c *core) beginSteering(p spec) {
	c.steering, c.steered, c.steeredAmong = steeringStarts, nil, p.plan.Workers()
	c.unattached, c.attaching = false, 0
	clear(c.stuck)
	for _, w := range c.order {
		w.slot = slotNone
	}
	c.set(steeringTimer, steeringTime)
	c.emit(startSteering{p.plan})
}

// steeringTime is how long the steering may take to start.
const steeringTime = 10 * time.Second

func (c *core) onSteering(e event) {
	switch e := e.(type) {
	case steeringStarted:
		c.steeringStarted(e.err)
	case steeringFailed:
		c.loseSteering(e.err)
	case steeringJoined:
		w := c.workers[e.ref]
		if w == nil || c.steering != steeringOn || w.slot != slotPending {
			if e.slot >= 0 {
				c.emit(leaveSteering(e))
			}
			return
		}
		w.slot = e.slot
		c.changed()
		if e.slot >= 0 {
			c.emit(send{ref: w.Ref, msg: wire.Message{Type: wire.Board, Slot: e.slot}, board: true})
		}
	case steeringHung:
		c.stuckAt(e.worker, e.hung)
	}
}

func (c *core) steeringStarted(err error) {
	if c.steering != steeringStarts {
		return
	}
	if err != nil && c.stage == opening {
		c.giveUp(err)
		return
	}
	if err != nil {
		c.loseSteering(err)
		return
	}
	c.steering, c.steered = steeringOn, map[int]roster.Steer{}
	for _, w := range c.order {
		c.join(w)
	}
	c.unattached = true // until the steering knows who serves
	c.changed()
	if c.current == nil {
		c.attachAll()
	}
	if c.stage == opening {
		c.openNext()
	}
}

// loseSteering goes on without, which is logged once.
func (c *core) loseSteering(err error) {
	if c.steering != steeringOff {
		c.log(slog.LevelError, "connections are not steered", "error", err)
	}
	c.steering, c.steered, c.unattached, c.attaching = steeringOff, nil, false, 0
	clear(c.stuck)
	c.changed()
}

// attachAll has what comes to all endpoints steered.
func (c *core) attachAll() {
	c.unattached = false
	for _, e := range c.open() {
		c.attach(e)
	}
}

// attach has what comes to an endpoint steered.
func (c *core) attach(e wire.Endpoint) {
	known := c.endpoints[e]
	if known == nil || known.shared || e.Own || e.IsPacket() || c.steeredAmong > known.sockets {
		return
	}
	if c.steering == steeringOn && !c.unattached {
		c.attaching++
		c.set(steeringTimer, steeringTime)
		c.emit(attachSteering{e, c.steeredAmong})
	}
}

// steeringSettles reports whether connections are to be steered, and are not yet.
func (c *core) steeringSettles() bool {
	return c.steering == steeringStarts || c.steering == steeringOn && (c.unattached || c.attaching > 0)
}

func (c *core) attached(e attached) {
	c.attaching = max(0, c.attaching-1)
	if c.stage == opening && c.attaching == 0 {
		defer c.openNext()
	}
	known := c.endpoints[e.endpoint]
	if known == nil {
		return
	}
	known.steered = e.err == nil && e.mode != "hash" && e.mode != "SO_INCOMING_CPU"
	switch {
	case e.err != nil:
		c.log(slog.LevelError, "connections are not steered", "endpoint", e.endpoint.String(), "error", e.err)
	case e.reason != nil:
		c.log(slog.LevelWarn, "steering", "endpoint", e.endpoint.String(), "mode", e.mode, "reason", e.reason)
	default:
		c.log(slog.LevelInfo, "steering", "endpoint", e.endpoint.String(), "mode", e.mode)
	}
}

// steeredEndpoints returns those among whose sockets a program chooses that knows them.
func (c *core) steeredEndpoints() map[wire.Endpoint]bool {
	all := map[wire.Endpoint]bool{}
	for e, known := range c.endpoints {
		if known.steered {
			all[e] = true
		}
	}
	return all
}

// join has a worker told where to report to the steering.
func (c *core) join(w *worker) {
	if c.steering == steeringOn && w.slot == slotNone && w.state > wire.Joining && !w.detached {
		w.slot = slotPending
		c.emit(joinSteering{w.Ref})
	}
}

// tellSteering tells the steering what has changed.
func (c *core) tellSteering() {
	if c.steering != steeringOn || c.steeredAmong != len(c.wishes) {
		return
	}
	waits := false
	for i, wish := range c.wishes {
		if wish.Steer.Slot == slotPending {
			waits = true // until it is known where the worker reports
			continue
		}
		if before, ok := c.steered[i]; ok && before == wish.Steer {
			continue
		}
		c.steered[i] = wish.Steer
		c.emit(steer{i, wish.Steer})
	}
	if c.unattached && !waits {
		c.attachAll()
	}
}

// stuckAt notes that the steering has found that a worker hangs, or not any more.
func (c *core) stuckAt(id int, hung bool) {
	if c.current == nil || id >= c.current.plan.Workers() || c.stuck[id] == hung {
		return
	}
	if hung {
		c.stuck[id] = true
		c.log(slog.LevelWarn, "worker hangs, others serve its queue", "worker", id)
	} else {
		delete(c.stuck, id)
		c.log(slog.LevelInfo, "worker goes on", "worker", id)
	}
	c.changed()
}
