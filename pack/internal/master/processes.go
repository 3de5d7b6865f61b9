package master

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/procgroup"
)

// workerError is why a worker could not serve, in its own words.
type workerError struct{ text string }

// process follows the processes of a generation.
func (c *core) process(e process) {
	g := c.find(e.ref.Generation)
	if g == nil || e.ref.ID >= len(g.members) {
		return
	}
	m := &g.members[e.ref.ID]
	args := []any{"worker", e.ref.ID, "pid", e.pid, "generation", g.number}
	log := func(level slog.Level, msg string, more ...any) { c.log(level, msg, append(args, more...)...) }
	switch e.kind {
	case procgroup.Started:
		m.ref, m.pid, m.started, m.silent, m.mute = e.ref, e.pid, c.now, false, true
		log(slog.LevelDebug, "worker started", "attempt", e.ref.Attempt)
	case procgroup.Killed:
		if w := c.workers[e.ref]; w == nil || !w.hostile { // its end tells why, in one line
			log(slog.LevelWarn, "killing worker", "reason", e.err)
		}
	case procgroup.Failed, procgroup.Stopped:
		if w := c.workers[e.ref]; w != nil {
			c.removeWorker(w)
		}
		m.ref, m.pid, m.started = roster.Ref{}, 0, time.Time{}
		c.changed()
		if e.kind == procgroup.Failed {
			c.failed(g, m, e, log)
		} else if e.err != nil {
			args := []any{"error", e.err, "uptime", e.uptime.Round(time.Millisecond)}
			log(slog.LevelWarn, "worker stopped", append(args, e.panicked()...)...)
		} else {
			log(slog.LevelDebug, "worker stopped", "uptime", e.uptime.Round(time.Millisecond))
		}
		c.closeUnused()
	}
}

// failed notes that a process has ended unasked, or could not be started.
func (c *core) failed(g *generation, m *member, e process, log func(slog.Level, string, ...any)) {
	m.failures, m.failed, m.crash = e.failures, c.now, e.crash
	if m.mute = m.mute && e.pid != 0; m.mute {
		e.err = fmt.Errorf("%w, before it called Run", e.err)
	}
	wasReady := g.up || g.ready[e.ref.ID]
	delete(g.ready, e.ref.ID)
	if g != c.current { // a change wants all of them
		c.changeFails(g, withCrash(e.err, e.crash), wasReady)
	}
	if e.retry < 0 || !g.up && g != c.current {
		return // the end of the group or the change says why, or everything is being stopped
	}
	args := []any{"error", e.err, "uptime", e.uptime.Round(time.Millisecond),
		"failures", e.failures, "next", e.retry.Round(time.Millisecond)}
	log(slog.LevelError, "worker failed", append(args, e.panicked()...)...)
}

// panicked returns why a process has crashed, for the log.
func (e process) panicked() []any {
	if e.crash == "" {
		return nil
	}
	return []any{"panic", e.crash}
}

// withCrash returns an error that says why a process has crashed, too.
func withCrash(err error, crash string) error {
	if crash == "" {
		return err
	}
	return fmt.Errorf("%w, panic: %s", err, crash)
}

// groupEnded forgets a generation whose workers are gone, and closes what only it served.
func (c *core) groupEnded(e groupEnded) {
	g := c.find(e.generation)
	if g == nil {
		return
	}
	for _, w := range append([]*worker(nil), c.order...) {
		if w.generation == g {
			c.removeWorker(w)
		}
	}
	c.forget(g)
	c.emit(dropGeneration{g.number})
	c.changed()
	switch {
	case g != c.current && e.err != nil:
		c.changeFails(g, e.err, false)
	case g != c.current && g.up:
		c.log(slog.LevelInfo, "generation has drained", "generation", g.number)
	case g == c.current && c.stage < leaving:
		c.giveUp(g.startError(e.err))
	}
	c.closeUnused()
}

// startError says why the first worker of the first generation has failed.
func (g *generation) startError(err error) error {
	first := &g.members[0]
	if !first.mute {
		return withCrash(startError(err), first.crash)
	}
	err = fmt.Errorf("%w, before it called Run (each worker runs main from its beginning, as the master does)",
		startError(err))
	return withCrash(err, first.crash)
}

// startError says why a generation did not come up, in the words of the worker if it said anything.
func startError(err error) error {
	start, ok := errors.AsType[*procgroup.StartError](err)
	if !ok {
		return err
	}
	if told, ok := errors.AsType[*workerError](start.Err); ok {
		return told
	}
	return fmt.Errorf("a worker failed before it was ready: %w", start.Err)
}
