package pack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/executable"
	"github.com/gopherpack/gopherpack/procgroup"
)

// generation is one set of workers. A reload or an upgrade starts the next beside it, on the same sockets.
type generation struct {
	generationSpec
	attr   *syscall.SysProcAttr // of the workers
	group  *procgroup.Group
	ctx    context.Context    // while it may run
	stop   context.CancelFunc // asks the workers to drain
	failed chan error         // the first thing that went wrong with it, before another followed
	up     chan struct{}      // closed when every worker was ready once

	links map[int]linkState // what a predecessor of this master knew of the workers, by PID

	// Guarded by masterState.mu.
	ready   map[int]bool      // workers that are; only kept until it is up
	present map[int]bool      // workers that have a process
	inPlace map[int]bool      // workers that have taken another's place before it is the current generation
	uses    map[endpoint]bool // what its workers asked for
}

// generationSpec is what workers a generation has.
type generationSpec struct {
	number int
	plan   plan
	user   string            // as Config.User
	image  *executable.Image // what the workers run; nil: what the master does
	held   bool              // workers are started one by one
}

func newGeneration(spec generationSpec) (*generation, error) {
	attr, err := runAs(spec.user)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", spec.user, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &generation{
		generationSpec: spec,
		attr:           attr,
		ctx:            ctx,
		stop:           stop,
		failed:         make(chan error, 1),
		up:             make(chan struct{}),
		ready:          map[int]bool{},
		present:        map[int]bool{},
		inPlace:        map[int]bool{},
		uses:           map[endpoint]bool{},
	}, nil
}

// launch starts a generation, in the background.
func (m *masterState) launch(spec generationSpec) (*generation, error) {
	m.mu.Lock()
	m.generations++
	spec.number = m.generations
	m.mu.Unlock()
	g, err := newGeneration(spec)
	if err != nil {
		return nil, err
	}
	m.supervise(g, nil)
	return g, nil
}

// supervise runs a generation, in the background: a new one, or one whose processes there are already.
func (m *masterState) supervise(g *generation, adopt *procgroup.State) {
	group := &procgroup.Group{
		Size:         g.plan.workers(),
		Command:      func(id int) (*exec.Cmd, error) { return command(g.generationSpec, id, g.attr) },
		Start:        func(id int, cmd *exec.Cmd) error { return startOnCPUs(g.plan.cpus(id), cmd, g.user != "") },
		Serve:        func(p *procgroup.Process, c *net.UnixConn) { m.serve(g, p, c) },
		Event:        func(e procgroup.Event) { m.event(g, e) },
		Terminate:    m.terminate,
		ReadyTimeout: m.config.ReadyTimeout,
		StopTimeout:  m.config.ShutdownTimeout,
		BackoffAll:   time.Second, // nobody serves
		Hold:         g.held,
		Adopt:        adopt,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	g.group = group
	if adopt != nil {
		for id, member := range adopt.Members {
			g.present[id] = member.PID != 0
		}
	}
	if m.current == nil {
		m.current = g
	}
	m.live = append(m.live, g)
	if m.stopping {
		g.stop()
	}
	m.running.Go(func() {
		err := group.Run(g.ctx)
		if errors.Is(err, procgroup.ErrReleased) {
			return // somebody else supervises it now
		}
		if err != nil {
			g.fail(err)
		}
		g.stop()
		m.ended(g)
	})
}

// usesMoreThan returns the endpoints that a generation's workers serve and another's do not.
func (g *generation) usesMoreThan(other *generation) (more []endpoint) {
	for e := range g.uses {
		if !other.uses[e] {
			more = append(more, e)
		}
	}
	return more
}

// fail notes the first thing that went wrong.
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

// ended forgets a generation whose workers are gone, and closes what only it served.
func (m *masterState) ended(g *generation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(g)
	defer m.wake()
	if g != m.current && g.isUp() {
		m.log.Info("generation has drained", "generation", g.number)
	}
	if !m.stopping && len(m.live) == 1 && m.current.isUp() {
		m.sockets.keep(m.current.uses)
	}
}

// forget takes a generation out of those that live. It is called with mu locked.
func (m *masterState) forget(g *generation) {
	for i, other := range m.live {
		if other == g {
			m.live = append(m.live[:i], m.live[i+1:]...)
			return
		}
	}
}

// event follows a generation's group. It is called from the group's goroutine.
func (m *masterState) event(g *generation, e procgroup.Event) {
	log := m.log.With("worker", e.ID, "pid", e.PID, "generation", g.number)
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.wake()
	g.present[e.ID] = e.Kind != procgroup.Failed && e.Kind != procgroup.Stopped
	switch e.Kind {
	case procgroup.Started:
		log.Debug("worker started", "attempt", e.Attempt)
	case procgroup.Ready:
		if g.isUp() {
			log.Info("worker ready", "attempt", e.Attempt)
			return
		}
		g.ready[e.ID] = true
		if len(g.ready) == g.plan.workers() {
			close(g.up)
			if g == m.current {
				m.announce()
			}
		}
	case procgroup.Killed:
		log.Warn("killing worker", "reason", e.Err)
	case procgroup.Failed:
		wasReady := g.isUp() || g.ready[e.ID]
		delete(g.ready, e.ID)
		switch { // a change wants all of them
		case g == m.current:
		case wasReady:
			g.fail(e.Err)
		default:
			g.fail(&procgroup.StartError{Err: e.Err})
		}
		if e.Retry < 0 || !g.isUp() && g != m.current {
			return // Run or the change says why, or everything is being stopped
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

// wake has whoever awaits something look again.
func (m *masterState) wake() {
	select {
	case m.happened <- struct{}{}:
	default:
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
