package steer

import (
	"fmt"
	"syscall"

	"github.com/gopherpack/gopherpack/reuseport"
)

// attachWithout steers a group as well as can be without the program. It is called with mu locked.
//
// By CPU alone is better than the hash only if every worker's CPU receives something. On a machine with one receive queue one
// worker would get everything.
func (s *Steering) attachWithout(sockets []syscall.Conn) error {
	if err := receivesSpread(s.workers); err != nil {
		s.mode, s.reason = Hash, fmt.Errorf("%w; and by CPU would be worse than by hash: %w", s.reason, err)
		return nil
	}
	members := map[int]int{}
	for id, w := range s.workers {
		for cpu := range w.cpus.All() {
			members[cpu] = id
		}
	}
	errCPU := reuseport.AttachCPU(sockets[0], members)
	if errCPU == nil {
		s.mode = ByCPU
		return nil
	}
	if err := preferIncoming(sockets, s.workers); err != nil {
		s.mode, s.reason = Hash, fmt.Errorf("%w; and %w", s.reason, errCPU)
		return nil
	}
	s.mode = IncomingCPU
	return nil
}
