package pack

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
)

// workerReport is how one worker does.
type workerReport struct {
	procgroup.Member
	generation int
	cpus       string // "" if it is not pinned
	state      string // as stateOf says
	vitals     vitals
	coveredBy  int // the worker that serves its queue; -1 if it does that itself
}

// reopen has logs opened anew and writes the state of the pack to the log.
func (m *masterState) reopen() {
	if hook := m.config.OnReopen; hook != nil {
		hook()
	}
	m.broadcast(message{Type: msgReopen})
	all := m.reports()
	m.mu.Lock()
	current, generations, begun := m.current, len(m.live), m.begun
	m.mu.Unlock()
	if current == nil {
		return
	}
	m.log.Info("state of the pack", "pid", os.Getpid(), "generation", current.number, "generations", generations,
		"workers", current.plan.workers(), "uptime", time.Since(begun).Round(time.Second), "listening", m.sockets.addresses())
	for _, w := range all {
		args := []any{"worker", w.ID, "pid", w.PID, "generation", w.generation, "cpus", w.cpus, "state", w.state}
		if !w.Started.IsZero() {
			args = append(args, "uptime", time.Since(w.Started).Round(time.Second), "conns", w.vitals.Conns, "served", w.vitals.Served)
		}
		if w.Failures > 0 {
			args = append(args, "failures", w.Failures)
		}
		if w.coveredBy >= 0 {
			args = append(args, "coveredBy", w.coveredBy)
		}
		if w.vitals.Probe != "" {
			args = append(args, "probe", w.vitals.Probe)
		}
		m.log.Info("state of a worker", args...)
	}
}

// reports returns how each worker does, those of older generations first.
func (m *masterState) reports() (all []workerReport) {
	m.mu.Lock()
	live := slices.Clone(m.live)
	m.mu.Unlock()
	members := map[*generation][]procgroup.Member{}
	for _, g := range live {
		members[g] = g.group.Members() // whose goroutine may be waiting for mu
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	links := map[int]*workerLink{}
	for p, l := range m.links {
		links[p.PID] = l
	}
	for _, g := range live {
		for _, member := range members[g] {
			r := workerReport{Member: member, generation: g.number, cpus: g.plan.cpus(member.ID).String(), coveredBy: -1}
			if l := links[member.PID]; l != nil && member.PID != 0 {
				r.vitals = l.pulse.vitals
			}
			r.state = stateOf(member, links[member.PID])
			if cover := m.covers[member.ID]; cover != nil && g == m.current {
				r.coveredBy = cover.process.ID
			}
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b workerReport) int { return cmp.Compare(a.generation, b.generation) })
	return all
}

// stateOf returns what a worker is doing, in a word. l is nil if it has not said hello.
func stateOf(w procgroup.Member, l *workerLink) string {
	switch {
	case w.PID == 0:
		return "down"
	case l == nil || !l.state.Ready:
		return "starting"
	case l.state.Leaving:
		return "draining"
	case l.pulse.late:
		return "late"
	}
	return "up"
}
