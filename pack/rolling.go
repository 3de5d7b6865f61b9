package pack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gopherpack/gopherpack/procgroup"
)

// Config.Rolling has a change replace the workers one by one: each of the next generation is admitted when the old worker
// before it has drained. Meanwhile both generations serve, and take connections that draining workers hand over.

// othersDrained waits until the workers that an earlier change has replaced are gone.
func (m *masterState) othersDrained(ctx context.Context) error {
	return m.await(ctx, nil, func() bool { return len(m.live) == 1 })
}

// roll has the workers of a generation take the places of those of the old one. It returns when all have, and none has
// failed. The last of the old workers has not been told to drain then, nor those that have no successor: that is left to
// whoever replaces the generation, or goes back to it.
func (m *masterState) roll(ctx context.Context, old, next *generation) error {
	oneByOne := true
	for id := range next.plan.workers() {
		if err := m.admit(ctx, next, id, next.failed); err != nil {
			return err
		}
		if err := m.canary(ctx, next); err != nil {
			return err
		}
		m.mu.Lock()
		next.inPlace[id] = true
		m.serving()
		if id == 0 && !maps.Equal(old.uses, next.uses) {
			oneByOne = false
			m.log.Warn("other addresses are served than before: all old workers go on until all new ones are ready")
		}
		m.mu.Unlock()
		if oneByOne && id < old.plan.workers()-1 {
			if err := m.retire(ctx, old, next, id, next.failed); err != nil {
				return err
			}
		}
	}
	return nil
}

// rollBack undoes what roll did, as far as it came, because of why. If an old worker does not come back, its group goes on
// trying.
func (m *masterState) rollBack(next, old *generation, why error) {
	m.mu.Lock()
	clear(next.inPlace)
	m.serving()
	missing := m.absent(old)
	m.mu.Unlock()
	if len(missing) > 0 {
		m.log.Warn("going back to the old workers", "error", why, "generation", old.number, "missing", len(missing))
	}
	for id := range next.plan.workers() { // room for those that are missing
		if !slices.Contains(missing, id) {
			m.retire(m.ctx, next, old, id, nil)
		}
	}
	patience := 2 * m.config.ReadyTimeout
	for _, id := range slices.Backward(missing) { // the last may be draining only yet
		ctx, cancel := context.WithTimeoutCause(m.ctx, patience, fmt.Errorf("not ready within %v", patience))
		err := m.admit(ctx, old, id, nil)
		cancel()
		if m.ctx.Err() != nil {
			return
		}
		if err != nil {
			m.log.Error("an old worker is not back yet", "worker", id, "generation", old.number, "error", err)
		}
		m.retire(m.ctx, next, old, id, nil)
	}
}

// admit has a worker of a generation start, unless it is there, and waits until it is ready.
func (m *masterState) admit(ctx context.Context, g *generation, id int, failed <-chan error) error {
	if err := g.group.Admit(id); err != nil {
		return err
	}
	return m.await(ctx, failed, func() bool { return !slices.Contains(m.absent(g), id) })
}

// retire has a worker of a generation drain, whose place one of another has taken, and waits until it is gone.
func (m *masterState) retire(ctx context.Context, g, by *generation, id int, failed <-chan error) error {
	m.mu.Lock()
	stood := !slices.Contains(m.absent(g), id)
	m.mu.Unlock()
	if err := g.group.Retire(id); err != nil {
		return err
	}
	err := m.await(ctx, failed, func() bool { return !g.present[id] })
	if err == nil && stood {
		m.log.Info("worker replaced", "worker", id, "generation", by.number)
	}
	return err
}

// await waits until something is so, which is asked with mu locked whenever something has happened, or until a generation
// has failed, or ctx ends. Only the change may call it.
func (m *masterState) await(ctx context.Context, failed <-chan error, so func() bool) error {
	for {
		m.mu.Lock()
		done := so()
		m.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-m.happened:
		case err := <-failed:
			if _, ok := errors.AsType[*procgroup.StartError](err); ok {
				return startError(err)
			}
			return fmt.Errorf("a new worker failed while others were replaced: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// absent returns which workers of a generation do not accept. It is called with mu locked.
func (m *masterState) absent(g *generation) (ids []int) {
	accept := map[int]bool{}
	for p, l := range m.links {
		if l.generation == g && l.stands() {
			accept[p.ID] = true
		}
	}
	for id := range g.plan.workers() {
		if !accept[id] {
			ids = append(ids, id)
		}
	}
	return ids
}
