package master

import (
	"log/slog"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// hookTime is how long the state of the pack waits for OnReopen, which may open the log anew that it is written to.
const hookTime = 2 * time.Second

// reopen has logs opened anew and writes the state of the pack to the log.
func (c *core) reopen() {
	if c.OnReopen && !c.reopening {
		c.reopening = true
		c.emit(runHook{name: onReopen})
		c.set(hookTimer, hookTime)
		return
	}
	c.reopened() // without the hook, if that is stuck
}

// hookReturned notes that OnReopen has returned.
func (c *core) hookReturned() {
	c.reopening = false
	if _, waits := c.timers[hookTimer]; waits {
		c.reopened()
	}
}

// reopened goes on when OnReopen has returned, or has taken too long.
func (c *core) reopened() {
	delete(c.timers, hookTimer)
	for _, w := range c.order {
		c.tell(w, wire.Message{Type: wire.Reopen})
	}
	c.status()
	if slices.ContainsFunc(c.open(), func(e wire.Endpoint) bool { return e.Network == "unix" }) {
		c.emit(checkFiles{}) // an operator who finds nobody at a socket asks how the pack is
	}
}

// status writes the state of the pack to the log.
func (c *core) status() {
	if c.current == nil {
		return
	}
	c.log(slog.LevelInfo, "state of the pack", "pid", c.PID,
		"generation", c.current.number, "generations", len(c.generations), "workers", c.current.plan.Workers(),
		"uptime", c.now.Sub(c.begun).Round(time.Second), "listening", c.addresses())
	for _, g := range c.generations {
		for id := range g.members {
			c.reportMember(g, id)
		}
	}
}

func (c *core) reportMember(g *generation, id int) {
	m := &g.members[id]
	w := c.workers[m.ref]
	args := []any{
		"worker", id, "pid", m.pid, "generation", g.number, "cpus", g.plan.CPUs(id).String(), "state", c.stateOf(m, w),
	}
	var vitals wire.Vitals
	if w != nil {
		vitals = w.pulse.Vitals()
	}
	if m.pid != 0 {
		args = append(args, "uptime", c.now.Sub(m.started).Round(time.Second), "conns", vitals.Conns, "served", vitals.Served)
	}
	if n := m.failuresAt(c.now); n > 0 {
		args = append(args, "failures", n)
	}
	if cover := c.covers[id]; cover != nil && g == c.current {
		args = append(args, "coveredBy", cover.by.ID)
	}
	if vitals.Probe != "" {
		args = append(args, "probe", vitals.Probe)
	}
	c.log(slog.LevelInfo, "state of a worker", args...)
}

// stateOf returns what a worker is doing, in a word. w is nil if it is not listened to.
func (c *core) stateOf(m *member, w *worker) string {
	switch {
	case m.pid == 0:
		return "down"
	case w == nil || w.state < wire.Serving:
		return "starting"
	case w.state > wire.Serving:
		return "draining"
	}
	if w.pulse.Late() {
		return "late"
	}
	return "up"
}
