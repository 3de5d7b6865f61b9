package steer

import (
	"fmt"
	"syscall"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/reuseport"
)

// attachWithout steers a group as well as can be without the program, and says why in no better way. It is called with
// mu locked.
//
// By CPU alone is better than the hash only if every worker's CPU receives something. On a machine with one receive
// queue one worker would get everything.
func (s *Steering) attachWithout(sockets []syscall.Conn) error {
	if err := receivesSpread(s.workers); err != nil {
		s.mode, s.reason = Hash, fmt.Errorf("%w; and by CPU would be worse than by hash: %w", s.refused, err)
		return nil
	}
	members, err := everyCPU(s.workers)
	if err != nil {
		s.mode, s.reason = Hash, fmt.Errorf("%w; and %w", s.refused, err)
		return nil
	}
	errCPU := reuseport.AttachCPU(sockets[0], members)
	if errCPU == nil {
		s.mode, s.reason = ByCPU, s.refused
		return nil
	}
	if err := preferIncoming(sockets, s.workers); err != nil {
		s.mode, s.reason = Hash, fmt.Errorf("%w; and %w", s.refused, errCPU)
		return nil
	}
	s.mode, s.reason = IncomingCPU, fmt.Errorf("%w; and %w", s.refused, errCPU)
	return nil
}

// everyCPU returns the worker of each CPU of this machine: what a CPU receives that has none would be spread over all
// sockets of the group, also over those that are about to be closed.
func everyCPU(workers []worker) (map[int]int, error) {
	topology, err := affinity.ReadTopology()
	if err != nil {
		return nil, err
	}
	sets := make([]affinity.Set, len(workers))
	for id, w := range workers {
		sets[id] = w.cpus
	}
	members := nearest(topology, sets)
	for _, c := range topology {
		if _, ok := members[c.ID]; !ok {
			members[c.ID] = c.ID % len(workers)
		}
	}
	return members, nil
}
