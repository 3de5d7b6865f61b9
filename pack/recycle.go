package pack

import (
	"fmt"
	"time"
)

// Recycle says when a worker is replaced by a new one, for programs that leak: each of the limits counts, none of them
// by default. It is asked to drain, while others serve its queue and take its idle connections, and a new one is
// started when it has ended; so nothing is lost, and there is no more memory used than before. A pack of one worker is
// reloaded instead. One worker is replaced at a time, not while a reload or an upgrade is in progress, and not before
// it has served for ten times MinReady.
//
// Each process has limits of its own, which are lower by up to a tenth, at random, so that workers that started
// together do not come to them together; MemoryHard is the same for all.
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
