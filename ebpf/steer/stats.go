package steer

import (
	"fmt"
	"strings"
)

// Stats is what came of the choices so far, since Start. Where Mode is not EBPF nobody counts them: then there are only
// the workers' states, as they were set.
type Stats struct {
	Mode    Mode
	Workers []WorkerStats
	Hashed  uint64 // connections that the kernel's hash had to choose a socket for, since nobody was up
	Moved   uint64 // those among them that came from the queue of a socket that was closed
}

// WorkerStats is what came of the choices of one worker. They are more than the connections, on a slow machine by a
// fifth: the program is also asked about late packets of connections that are gone.
type WorkerStats struct {
	State    State
	Open     int    // connections, as it reports
	Queued   int    // connections that it has not accepted, at the last look
	Local    uint64 // connections that its CPUs received, and it got
	Balanced uint64 // connections that it got as the less loaded of two
	Spilled  uint64 // connections that its CPUs received, and others got, because of its load
	Draining uint64 // the same, because it was draining
	Dead     uint64 // because it was dead, or its socket closed
	Hung     uint64 // because it was hung

	// ByCPU is Local and Balanced by the CPU that received them.
	ByCPU map[int]uint64
}

// String returns a table, a line for each worker, and what is not of one.
func (s Stats) String() string {
	var b strings.Builder
	if s.Mode != EBPF {
		fmt.Fprintf(&b, "%-7s%s\n", "worker", "state")
		for id, w := range s.Workers {
			fmt.Fprintf(&b, "%-7d%v\n", id, w.State)
		}
		fmt.Fprintf(&b, "steered by %s: nothing else is known\n", s.Mode)
		return b.String()
	}
	fmt.Fprintf(&b, "%-7s%-9s%8s%8s%10s%10s%10s%10s%8s%8s\n", "worker", "state", "open", "queued", "local", "balanced", "spilled", "draining", "dead", "hung")
	for id, w := range s.Workers {
		fmt.Fprintf(&b, "%-7d%-9v%8d%8d%10d%10d%10d%10d%8d%8d\n", id, w.State, w.Open, w.Queued, w.Local, w.Balanced, w.Spilled, w.Draining, w.Dead, w.Hung)
	}
	fmt.Fprintf(&b, "by hash: %d, of which moved from a closed socket: %d\n", s.Hashed, s.Moved)
	return b.String()
}

// Stats returns what came of the choices so far. It reads a few maps of the kernel, which takes microseconds for each
// worker.
func (s *Steering) Stats() (Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := Stats{Mode: s.mode, Workers: make([]WorkerStats, len(s.workers))}
	if s.workers == nil {
		return all, fmt.Errorf("steer: stats: %w", errNotStarted)
	}
	for id, w := range s.workers {
		stats := &all.Workers[id]
		stats.State, stats.Queued = w.state, w.queue
		if s.kernel == nil {
			continue
		}
		if w.hung {
			stats.State = Hung
		}
		if w.slot >= 0 {
			stats.Open = int(s.slots[w.slot].Read().Open)
		}
		if err := s.kernel.count(id, stats); err != nil {
			return all, fmt.Errorf("steer: stats of worker %d: %w", id, err)
		}
	}
	if s.kernel == nil {
		return all, nil
	}
	var hash WorkerStats
	if err := s.kernel.count(len(s.workers), &hash); err != nil {
		return all, fmt.Errorf("steer: stats: %w", err)
	}
	all.Hashed, all.Moved = hash.Local, hash.Balanced
	return all, nil
}
