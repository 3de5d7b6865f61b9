package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// errInProgress is why a change is refused during another.
var errInProgress = errors.New("a reload or an upgrade is in progress")

// A change replaces the workers: a reload, or an upgrade. There is one at a time.

// change has do replace the workers, unless another change is in progress or the pack is not up. Its context also ends
// when the pack stops, and the pack's end waits for it. name is for the log. When it returns, another change may begin.
func (m *masterState) change(ctx context.Context, name string, do func(context.Context, *generation) error) error {
	if err := m.beginChange(); err != nil {
		m.log.Warn(name+" refused", "reason", err)
		return fmt.Errorf("%s: %w", name, err)
	}
	old, err := m.doChange(ctx, do)
	if err != nil {
		m.log.Error(name+" failed, the old workers go on", "error", err, "generation", old.number)
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// doChange ends the change that was begun, and returns which generation was the current one before.
func (m *masterState) doChange(ctx context.Context, do func(context.Context, *generation) error) (*generation, error) {
	defer m.running.Done()
	defer m.changing.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(m.ctx, func() { cancel(context.Cause(m.ctx)) })()
	m.mu.Lock()
	old := m.current
	m.mu.Unlock()
	if m.config.Rolling {
		if err := m.othersDrained(ctx); err != nil {
			return old, err
		}
	}
	return old, do(ctx, old)
}

// beginChange reports why no change may begin. If one may, the pack's end waits for it.
func (m *masterState) beginChange() error {
	if !m.changing.TryLock() {
		return errInProgress
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err := error(nil)
	switch {
	case m.stopping:
		err = errors.New("the pack is stopping")
	case m.current == nil || !m.current.isUp():
		err = errors.New("the pack is not up yet")
	}
	if err != nil {
		m.changing.Unlock()
		return err
	}
	m.running.Add(1)
	return nil
}

// reload replaces the workers by new ones of the same executable.
func (m *masterState) reload(ctx context.Context) error {
	same := func(old *generation) (plan, error) { return old.plan, nil }
	return m.renew(ctx, "reload", same, func(next, _ *generation) {
		m.log.Info("reloading", "generation", next.number)
	}, func(next *generation, took time.Duration) {
		m.log.Info("reloaded", "generation", next.number, "workers", next.plan.workers(), "took", took)
	})
}

// scale replaces the workers by another number of them. number returns that, from how many there are.
func (m *masterState) scale(ctx context.Context, number func(workers int) int) error {
	plan := func(old *generation) (plan, error) { return m.config.planFor(number(old.plan.workers())) }
	return m.renew(ctx, "scaling", plan, func(next, old *generation) {
		m.log.Info("changing the number of workers", "generation", next.number, "from", old.plan.workers(), "to", next.plan.workers())
	}, func(next *generation, took time.Duration) {
		m.scaled.Store(int64(next.plan.workers()))
		os.Setenv(envWorkers, strconv.Itoa(next.plan.workers())) // for the next version of the executable
		m.log.Info("number of workers changed", "generation", next.number, "workers", next.plan.workers(), "took", took)
	})
}

// renewAs replaces the workers by those of a plan.
func (m *masterState) renewAs(ctx context.Context, name string, p plan) error {
	return m.renew(ctx, name, func(*generation) (plan, error) { return p, nil }, func(next, _ *generation) {
		m.log.Info("placing the workers anew", "generation", next.number, "workers", p.workers(), "cpus", p.all())
	}, func(next *generation, took time.Duration) {
		m.log.Info("workers placed", "generation", next.number, "workers", p.workers(), "took", took)
	})
}

// renew is a change to new workers of the same executable. began and done log it.
func (m *masterState) renew(ctx context.Context, name string, plan func(old *generation) (plan, error),
	began func(next, old *generation), done func(next *generation, took time.Duration),
) error {
	begun := time.Now()
	var next *generation
	err := m.change(ctx, name, func(ctx context.Context, old *generation) error {
		p, err := plan(old)
		if err != nil {
			return err
		}
		next, err = m.tryNext(ctx, old, generationSpec{plan: p, user: old.user}, func(next *generation) { began(next, old) })
		if err != nil {
			return err
		}
		m.replace(next, old)
		m.giveUpSockets(next)
		return nil
	})
	if err != nil {
		return err
	}
	done(next, time.Since(begun).Round(time.Millisecond))
	return nil
}

// tryNext starts a generation beside the current one, old, and returns it when it has proven itself: every worker has become
// ready and none has failed for a while. If that goes wrong the generation is told to drain again, and nothing has
// changed.
func (m *masterState) tryNext(ctx context.Context, old *generation, spec generationSpec, launched func(*generation)) (*generation, error) {
	m.makeRoom()
	spec.held = m.config.Rolling
	if err := m.sockets.grow(ctx, spec.plan.workers()); err != nil {
		m.sockets.shrink(old.plan.workers())
		return nil, err
	}
	g, err := m.launch(spec)
	if err != nil {
		m.sockets.shrink(old.plan.workers())
		return nil, err
	}
	launched(g)
	atStep(stepLaunched)
	if spec.held {
		err = m.roll(ctx, old, g)
	} else {
		err = m.prove(ctx, g)
	}
	if err != nil {
		m.goBack(g, old, err)
		return nil, err
	}
	return g, nil
}

// goBack has a generation drain that will not take over from the old one after all, because of why.
func (m *masterState) goBack(next, old *generation, why error) {
	if next.held {
		m.rollBack(next, old, why)
	}
	if m.ctx.Err() != nil {
		return // the stop of the pack ends both: until it does, some worker must serve each socket
	}
	next.stop()
	m.sockets.shrink(old.plan.workers())
}

// prove waits until a generation has proven itself.
func (m *masterState) prove(ctx context.Context, g *generation) error {
	select {
	case <-g.up:
	case err := <-g.failed:
		return startError(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return m.canary(ctx, g)
}

// canary waits whether a generation, some of which has just become ready, fails soon.
func (m *masterState) canary(ctx context.Context, g *generation) error {
	atStep(stepReady)
	timer := time.NewTimer(m.config.Canary)
	defer timer.Stop()
	var err error
	select {
	case <-timer.C:
		select {
		case err = <-g.failed: // in the same moment
		default:
		}
	case err = <-g.failed:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("a new worker failed within %v of being ready: %w", m.config.Canary, err)
	}
	return nil
}

// replace makes a generation the current one and has the old ones drain.
func (m *masterState) replace(next *generation, old ...*generation) {
	m.mu.Lock()
	m.current = next
	other := m.steered != nil && m.steeredAmong != next.plan.workers()
	if !other {
		m.serving()
	}
	m.mu.Unlock()
	if other {
		if err := m.startSteering(next.plan); err != nil {
			m.steeringFails(err)
		}
	}
	m.mu.Lock()
	for _, g := range old {
		for _, e := range g.usesMoreThan(next) {
			if err := m.sockets.quiesceAll(e); err != nil {
				m.log.Debug("new connections cannot be kept out", "endpoint", e.String(), "error", err)
			}
		}
	}
	m.mu.Unlock()
	if err := m.sockets.direct(next.plan.workers()); err != nil {
		m.log.Error("connections still go to the sockets of removed workers", "error", err)
	}
	if m.ctx.Err() == nil { // a stop asks them all
		for _, g := range old {
			g.stop()
		}
	}
	atStep(stepReplaced)
}

// giveUpSockets closes the sockets that a generation has no workers for, after others have served them until nobody
// connects any more.
func (m *masterState) giveUpSockets(g *generation) {
	n := g.plan.workers()
	var lending sync.WaitGroup
	for what, socket := range m.sockets.surplus(n) {
		lending.Go(func() { m.lendOut(what, socket) })
	}
	lending.Wait()
	if m.ctx.Err() == nil { // a stop closes them all
		m.sockets.shrink(n)
	}
}

// lendOut has some worker serve a socket until nobody connects to it any more, and another if that one does not.
func (m *masterState) lendOut(what loan, socket descriptor) {
	for range lendTries {
		err := m.lend(m.ctx, what, socket)
		if err == nil || m.ctx.Err() != nil {
			return
		}
		m.log.Warn("a removed worker's socket is not served yet", "endpoint", what.endpoint.String(), "socket", what.socket, "error", err)
	}
}

const (
	lendLimit = 10 * time.Second // for the queue of a socket to be empty for a while
	lendTries = 3
)
