package pack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
)

// generation is one set of workers. A reload starts the next beside it, on the same sockets.
type generation struct {
	number int
	group  *procgroup.Group
	stop   context.CancelFunc // asks the workers to drain
	failed chan error         // why it did not come up; told once
	up     chan struct{}      // closed when every worker was ready once

	// Guarded by masterState.mu.
	ready map[int]bool // workers that are; only kept until it is up
}

// launch starts a generation, in the background.
func (m *masterState) launch(number int) *generation {
	ctx, stop := context.WithCancel(context.Background())
	g := &generation{
		number: number,
		stop:   stop,
		failed: make(chan error, 1),
		up:     make(chan struct{}),
		ready:  map[int]bool{},
	}
	g.group = &procgroup.Group{
		Size:         m.plan.workers(),
		Command:      func(id int) (*exec.Cmd, error) { return m.command(number, id) },
		Start:        m.startOnCPUs,
		Serve:        func(p *procgroup.Process, c *net.UnixConn) { m.serve(g, p, c) },
		Event:        func(e procgroup.Event) { m.event(g, e) },
		Terminate:    m.terminate,
		ReadyTimeout: m.config.ReadyTimeout,
		StopTimeout:  m.config.ShutdownTimeout,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current == nil {
		m.current = g
	}
	m.live = append(m.live, g)
	if m.stopping {
		stop()
	}
	m.running.Go(func() {
		defer stop()
		if err := g.group.Run(ctx); err != nil {
			g.fail(err)
		}
		m.ended(g)
	})
	return g
}

// fail notes the first reason why a generation does not come up.
func (g *generation) fail(err error) {
	select {
	case g.failed <- err:
	default:
	}
}

// isUp reports whether every worker was ready once.
func (g *generation) isUp() bool {
	select {
	case <-g.up:
		return true
	default:
		return false
	}
}

// ended forgets a generation whose workers are gone.
func (m *masterState) ended(g *generation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, other := range m.live {
		if other == g {
			m.live = append(m.live[:i], m.live[i+1:]...)
			break
		}
	}
	if g != m.current && g.isUp() {
		m.log.Info("generation has drained", "generation", g.number)
	}
}

// event follows a generation's group. It is called from the group's goroutine.
func (m *masterState) event(g *generation, e procgroup.Event) {
	log := m.log.With("worker", e.ID, "pid", e.PID, "generation", g.number)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Kind {
	case procgroup.Started:
		log.Debug("worker started", "attempt", e.Attempt)
	case procgroup.Ready:
		if g.isUp() {
			log.Info("worker ready", "attempt", e.Attempt)
			return
		}
		g.ready[e.ID] = true
		if len(g.ready) == m.plan.workers() {
			close(g.up)
			if g == m.current {
				m.announce()
			}
		}
	case procgroup.Killed:
		log.Warn("killing worker", "reason", e.Err)
	case procgroup.Failed:
		delete(g.ready, e.ID)
		if g != m.current && !g.isUp() {
			g.fail(&procgroup.StartError{Err: e.Err}) // a reload wants all of them
		}
		if e.Retry < 0 {
			return // Run or the reload says why, or everything is being stopped
		}
		log.Error("worker failed", "error", e.Err, "uptime", e.Uptime.Round(time.Millisecond), "failures", e.Failures,
			"next", e.Retry.Round(time.Millisecond))
	case procgroup.Stopped:
		if e.Err != nil {
			log.Warn("worker stopped", "error", e.Err, "uptime", e.Uptime.Round(time.Millisecond))
		} else {
			log.Debug("worker stopped", "uptime", e.Uptime.Round(time.Millisecond))
		}
	}
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

// reload starts new workers beside the old and, when all are ready, has the old drain. If they do not come up, the
// old go on. It logs what came of it.
func (m *masterState) reload(ctx context.Context) error {
	begun := time.Now()
	if !m.reloading.TryLock() {
		return errors.New("reload: one is in progress")
	}
	defer m.reloading.Unlock()
	m.mu.Lock()
	old := m.current
	m.mu.Unlock()
	if old == nil || !old.isUp() {
		m.log.Warn("not reloading: the pack is not up yet")
		return errors.New("reload: the pack is not up yet")
	}
	m.makeRoom()
	number := m.nextGeneration()
	m.log.Info("reloading", "generation", number)
	g := m.launch(number)
	var err error
	select {
	case <-g.up:
	case err = <-g.failed:
		err = startError(err)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		g.stop()
		m.log.Error("reload failed, the old workers go on", "error", err, "generation", old.number, "failed", number)
		return fmt.Errorf("reload: %w", err)
	}
	m.mu.Lock()
	m.current = g
	m.mu.Unlock()
	old.stop()
	m.log.Info("reloaded", "generation", number, "workers", m.plan.workers(), "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

func (m *masterState) nextGeneration() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generations++
	return m.generations
}

// makeRoom kills the oldest generations that still drain, if with one more there would be too many.
func (m *masterState) makeRoom() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; len(m.live)-i >= m.config.MaxGenerations; i++ {
		if g := m.live[i]; g != m.current {
			m.log.Warn("too many generations, killing the oldest", "generation", g.number, "max", m.config.MaxGenerations)
			go g.group.Kill() // its goroutine may be waiting for mu, to tell of an event
		}
	}
}
