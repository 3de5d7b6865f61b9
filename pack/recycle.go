package pack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gopherpack/gopherpack/internal/proc"
)

// Recycle says when a worker is replaced by a new one, for programs that leak: each of the limits counts, none of them by default.
// It is asked to drain, while others serve its queue and take its idle connections, and a new one is started when it has ended; so
// nothing is lost, and there is no more memory used than before. A pack of one worker is reloaded instead. One worker is
// replaced at a time, not while a reload or an upgrade is in progress, and not before it has served for ten times Canary.
//
// Each process has limits of its own, which are lower by up to a tenth, at random, so that workers that started together do not
// come to them together.
type Recycle struct {
	Requests uint64        // that it has served; of servers other than *http.Server, connections
	Age      time.Duration // since its start
	Memory   uint64        // resident set size in bytes; Linux only
	// MemoryHard is the size at which it is killed at once, which costs the requests that it is serving. Linux only.
	MemoryHard uint64
}

// check reports what is wrong with the limits.
func (r Recycle) check() error {
	switch {
	case r.Age < 0:
		return fmt.Errorf("Recycle.Age is negative: %v", r.Age)
	case r.MemoryHard > 0 && r.MemoryHard <= r.Memory:
		return fmt.Errorf("Recycle.MemoryHard, %d bytes, is not above Recycle.Memory, %d", r.MemoryHard, r.Memory)
	}
	return nil
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
	case r.MemoryHard > 0 && u.memory >= r.MemoryHard:
		return "" // whose end is another
	case r.Memory > 0 && float64(u.memory) >= memory:
		return fmt.Sprintf("it uses %d MiB of memory", u.memory>>20)
	case r.Requests > 0 && float64(u.requests) >= requests:
		return fmt.Sprintf("it has served %d requests", u.requests)
	case r.Age > 0 && u.age >= age:
		return fmt.Sprintf("it is %v old", u.age.Round(time.Second))
	}
	return ""
}

// newShare returns the share of the limits that a process has.
func newShare() float64 { return 1 - rand.Float64()/10 }

// recycleWorkers looks again and again for a worker that is to be replaced, until stop is called.
func (m *masterState) recycleWorkers() (stop func()) {
	if m.config.Recycle == (Recycle{}) {
		return func() {}
	}
	return every(m.config.beatEvery(), func(ctx context.Context, _ time.Time) { m.recycleOne(ctx) })
}

// recycleOne replaces the oldest of the workers that have reached a limit, if there is one, and nothing else is going on.
func (m *masterState) recycleOne(ctx context.Context) {
	l, why := m.mostUsed()
	if l == nil || !m.changing.TryLock() {
		return
	}
	m.changing.Unlock()
	p := l.process
	m.log.Info("replacing worker", "worker", p.ID, "pid", p.PID, "reason", why)
	if l.generation.plan.workers() == 1 {
		m.reload(ctx)
		return
	}
	if err := l.generation.group.Restart(p.ID); err != nil {
		m.log.Debug("replace a worker", "worker", p.ID, "error", err)
	}
}

// mostUsed returns the worker to be replaced, and why; nil if there is none, or one is missing. It kills those that are beyond the
// hard limit.
func (m *masterState) mostUsed() (most *workerLink, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.config.Recycle
	standing := 0
	for _, l := range m.links {
		p := l.process
		if l.generation != m.current || !l.stands() {
			continue
		}
		standing++
		u := usage{requests: l.pulse.vitals.Served, age: time.Since(p.Started)}
		if r.Memory > 0 || r.MemoryHard > 0 {
			u.memory = proc.Resident(p.PID)
		}
		if r.MemoryHard > 0 && u.memory >= r.MemoryHard {
			go p.Kill(fmt.Errorf("it uses %d MiB of memory, and may use %d", u.memory>>20, r.MemoryHard>>20)) // the group may be waiting for mu
			continue
		}
		reason := r.exceeded(u, l.share)
		if reason != "" && u.age > 10*m.config.Canary && (most == nil || p.Started.Before(most.process.Started)) {
			most, why = l, reason
		}
	}
	if m.stopping || m.current == nil || !m.current.isUp() || standing < m.current.plan.workers() {
		return nil, ""
	}
	return most, why
}
