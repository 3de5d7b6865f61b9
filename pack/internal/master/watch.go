package master

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/health"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// watched returns the workers that are to show that they work.
func (c *core) watched() (refs []roster.Ref) {
	for _, w := range c.order {
		if w.state == wire.Serving && !w.detached && !w.ending {
			refs = append(refs, w.Ref)
		}
	}
	return refs
}

// look acts on what has become of the workers since the last look.
func (c *core) look() {
	if c.stage != running || c.frozen {
		return
	}
	c.tellOfSlow()
	watched := c.watched()
	c.act(c.monitor.Look(watched), len(watched))
	for _, r := range c.monitor.Doubted() {
		if w := c.workers[r]; w != nil {
			c.emit(examine{r, w.pid, isDoubted})
		}
	}
}

// slowStart is how long a worker may take to be ready until the log tells of it.
const slowStart = 10 * time.Second

// tellOfSlow tells, once for each generation, that a worker takes long to be ready, and what for.
func (c *core) tellOfSlow() {
	for _, w := range c.order {
		since := c.now.Sub(w.started)
		if w.state > wire.Starting || w.ending || w.generation.slow || since < slowStart {
			continue
		}
		w.generation.slow = true
		reason := "OnWorkerStart has not returned"
		switch {
		case w.state == wire.Joining:
			reason = "it has not called Run"
		case w.said[wire.Listen]:
			reason = "a server does not accept"
		}
		c.logWorker(slog.LevelWarn, w, "worker is not ready yet",
			"reason", reason, "since", since.Round(time.Millisecond), "timeout", c.ReadyTimeout)
	}
}

// queues notes on which sockets connections wait, and what workers report.
func (c *core) queues(e queues) {
	c.tallied(e.tallies)
	c.weigh()
	if c.stage != running || c.frozen {
		return
	}
	waiting := map[roster.Ref]bool{}
	covered := map[int]bool{}
	for _, s := range e.waiting {
		if known := c.endpoints[s.Endpoint]; known == nil || known.shared || s.Socket >= len(c.wishes) {
			continue
		}
		if r := c.wishes[s.Socket].Server; r != (roster.Ref{}) {
			waiting[r] = true
		} else if cover := c.covers[s.Socket]; cover != nil && !s.Endpoint.Own {
			waiting[cover.by], covered[s.Socket] = true, true
		}
	}
	for _, w := range c.order {
		if covered[w.ID] && w.pulse.Late() {
			waiting[w.Ref] = true // at its own socket, which another serves, too
		}
	}
	watched := c.watched()
	c.act(c.monitor.Queues(watched, waiting, e.tallies), len(watched))
}

// act acts on what was found about workers.
func (c *core) act(found []health.Finding, watched int) {
	for _, f := range found {
		w := c.workers[f.Ref]
		since := f.Since.Round(time.Millisecond)
		switch {
		case f.Kind == health.AllLate:
			c.log(slog.LevelWarn, "all workers are late: the machine is starved, or was suspended", "workers", watched)
		case w == nil:
		case f.Kind == health.Ask:
			c.tell(w, wire.Message{Type: wire.Ping})
		case f.Kind == health.IsStalled:
			c.logWorker(slog.LevelDebug, w, "worker takes nothing from its queue", "since", since)
			c.changed()
		case f.Kind == health.StaysSo:
			c.logWorker(slog.LevelWarn, w, "worker takes nothing from its queue, others serve it", "since", since)
		case f.Kind == health.GoesOn:
			c.goesOn(w, f.Told)
		case f.Kind == health.IsLate:
			c.logWorker(slog.LevelWarn, w, "worker is late, others serve its queue", "silent", since)
			c.changed()
		case f.Kind == health.IsUnwell:
			c.emit(examine{w.Ref, w.pid, isUnwell})
		case f.Kind == health.IsHung:
			c.emit(examine{w.Ref, w.pid, isHung})
		}
	}
}

// goesOn has nobody serve the queue of a worker any more that works again.
func (c *core) goesOn(w *worker, told bool) {
	level := slog.LevelDebug
	if told {
		level = slog.LevelInfo
	}
	c.logWorker(level, w, "worker goes on")
	if w.generation == c.current {
		delete(c.stuck, w.ID) // told of it meanwhile, the steering has forgotten what it had found, and judges anew
	}
	c.changed()
}

// unwell replaces a worker whose probe fails, one at a time.
func (c *core) unwell(w *worker, why error) {
	switch {
	case c.Hang == ReportHung:
		c.logWorker(slog.LevelError, w, "worker hangs", "error", why)
	case !c.complete() || w.restarting:
		return
	default:
		c.logWorker(slog.LevelError, w, "worker hangs, replacing it", "error", why)
		c.tell(w, wire.Message{Type: wire.Stacks})
		c.restart(w)
	}
	c.monitor.Told(w.Ref)
}

// doubt is why a worker is examined.
type doubt int

const (
	isDoubted doubt = iota // it has just become silent, or ill
	isHung
	isUnwell
)

// examined notes what the kernel tells of a worker that gives no sign of life, or is unwell.
func (c *core) examined(e examined) {
	if e.why == isDoubted {
		c.monitor.Times(e.ref, e.times)
		return
	}
	w, since := c.workers[e.ref], c.monitor.Silence(e.ref)
	why := fmt.Errorf("hung: no sign of life for %v", since.Round(time.Millisecond))
	if e.why == isUnwell {
		since = c.monitor.Illness(e.ref)
	}
	if w == nil || w.state != wire.Serving || w.ending || since <= c.HangTimeout || c.stage != running {
		return // it goes on, or something else is done about it
	}
	if e.why == isUnwell {
		why = fmt.Errorf("hung: its probe has failed for %v: %s", since.Round(time.Millisecond), w.pulse.Vitals().Probe)
	}
	if but, first := c.monitor.Exemption(e.ref, since, e.state, e.times, c.Hang == KillHung); but != "" {
		if first {
			c.logWorker(slog.LevelWarn, w, "worker hangs, but "+but+": leaving it alone", "error", why)
		}
		return
	}
	if e.why == isUnwell {
		c.unwell(w, why)
		return
	}
	if !c.monitor.Told(e.ref) {
		return // it was looked at twice
	}
	if c.Hang == ReportHung {
		c.logWorker(slog.LevelError, w, "worker hangs", "error", why, "state", e.state)
		return
	}
	c.logWorker(slog.LevelError, w, "worker hangs, killing it", "error", why, "state", e.state)
	c.emit(killWithStacks{e.ref, why})
}

// complete reports whether every worker of the current generation serves, and none is about to be replaced.
func (c *core) complete() bool {
	if c.current == nil || !c.current.up {
		return false
	}
	serving := 0
	for _, w := range c.order {
		if w.generation == c.current && w.state == wire.Serving && !w.restarting && !w.ending {
			serving++
		}
	}
	return serving >= c.current.plan.Workers()
}

// restart has a worker drain, and another started when it has ended.
func (c *core) restart(w *worker) {
	w.restarting = true
	c.emit(restart{w.Ref})
}

// renewOne replaces the oldest of the workers that are to be replaced, if nothing else is going on, and reports whether
// there was one. A pack of one worker is reloaded instead.
func (c *core) renewOne() bool {
	var oldest *worker
	for _, w := range c.order {
		if w.renew != "" && w.generation == c.current && w.state == wire.Serving && !w.restarting &&
			(oldest == nil || w.started.Before(oldest.started)) {
			oldest = w
		}
	}
	if oldest == nil || c.refused() != nil || !c.complete() {
		return false
	}
	c.logWorker(slog.LevelInfo, oldest, "replacing worker", "reason", oldest.renew)
	oldest.renew = ""
	if c.current.plan.Workers() == 1 {
		c.start(&change{kind: renewing, begun: c.now})
	} else {
		c.restart(oldest)
	}
	return true
}

// sampleMemory looks at what workers have used.
func (c *core) sampleMemory() {
	if c.Recycle.Memory == 0 && c.Recycle.MemoryHard == 0 {
		c.sampled(sampled{})
		return
	}
	pids := map[roster.Ref]int{}
	for _, w := range c.order {
		if w.generation == c.current && w.state == wire.Serving {
			pids[w.Ref] = w.pid
		}
	}
	c.emit(sample{pids})
}

// sampled notes which workers have reached a limit of Recycle.
func (c *core) sampled(e sampled) {
	if c.stage != running {
		return
	}
	for _, w := range c.order {
		if w.generation != c.current || w.state != wire.Serving || w.ending {
			continue
		}
		w.memory = e.resident[w.Ref]
		u := usage{age: c.now.Sub(w.started), memory: w.memory, requests: w.pulse.Vitals().Served}
		if hard := c.Recycle.MemoryHard; hard > 0 && w.memory >= hard {
			c.condemn(w, fmt.Errorf("it uses %d MiB of memory, and may use %d", w.memory>>20, hard>>20))
			continue
		}
		// A worker that has just come is left alone for a while, so that too low a limit does not end in nothing but
		// starts.
		if why := c.Recycle.exceeded(u, w.share); why != "" && u.age > 10*c.MinReady && w.renew == "" {
			w.renew = why
		}
	}
}

// usage is what a worker has used.
type usage struct {
	requests uint64
	age      time.Duration
	memory   uint64
}

// exceeded returns which limit has been reached, or "". share is what part of it counts.
func (r Recycle) exceeded(u usage, share float64) string {
	requests, age, memory := float64(r.Requests)*share, time.Duration(float64(r.Age)*share), float64(r.Memory)*share
	switch {
	case r.Memory > 0 && float64(u.memory) >= memory:
		return fmt.Sprintf("it uses %d MiB of memory", u.memory>>20)
	case r.Requests > 0 && float64(u.requests) >= requests:
		return fmt.Sprintf("it has served %d requests", u.requests)
	case r.Age > 0 && u.age >= age:
		return fmt.Sprintf("it is %v old", u.age.Round(time.Second))
	}
	return ""
}
