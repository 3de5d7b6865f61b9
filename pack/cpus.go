package pack

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
)

// lookAtCPUs is how often the master looks whether the CPUs that it may use have changed.
const lookAtCPUs = 2 * time.Second

// followCPUs replaces the workers by others, on other CPUs, when those that the pack may use have changed, until stop is called: by
// an update of the container, or as CPUs went offline.
func (m *masterState) followCPUs() (stop func()) {
	last, err := affinity.Allowed(0)
	if err != nil {
		return func() {} // nobody is pinned, either
	}
	return every(lookAtCPUs, func(ctx context.Context, _ time.Time) {
		now, err := affinity.Allowed(0)
		if err != nil || now == last {
			return
		}
		if err := m.replan(ctx, last, now); !errors.Is(err, errInProgress) {
			last = now
		}
	})
}

// replan replaces the workers if on other CPUs there are to be others.
func (m *masterState) replan(ctx context.Context, from, to affinity.Set) error {
	plan, err := m.planNow()
	if err != nil {
		m.log.Error("the CPUs that this process may use have changed, the workers stay where they are", "from", from, "to", to, "error", err)
		return err
	}
	m.mu.Lock()
	current := m.current
	m.mu.Unlock()
	if current == nil || slices.Equal(current.plan.shares, plan.shares) && current.plan.unpinned == plan.unpinned {
		return nil
	}
	m.log.Info("the CPUs that this process may use have changed", "from", from, "to", to)
	return m.renewAs(ctx, "placement", plan)
}

// planNow plans as at the start, but for a number of workers that was changed since.
func (m *masterState) planNow() (plan, error) {
	if n := m.scaled.Load(); n > 0 {
		return m.config.planFor(int(n))
	}
	return m.config.makePlan()
}
