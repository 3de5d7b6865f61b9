package worker

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/internal/scoreboard"
)

// reporter counts what a worker has to do, and tells the master of it, and the steering, if there is any. Its methods
// are safe for concurrent use.
type reporter struct {
	served atomic.Uint64 // requests, of servers that tell of them, and connections of others

	toShed atomic.Int64 // connections that are to be handed over
	hogged atomic.Bool  // some work keeps the rest waiting

	resting atomic.Bool // nobody looks for hogs until wake is called
	woken   chan moment

	mu    sync.Mutex
	slot  *scoreboard.Slot // of the steering; nil if there is none
	tally *scoreboard.Slot // of the master; nil if it has none
	conns int              // open connections
	kept  int              // of those, that are kept alive and can be handed over
	total uint64           // connections that were accepted from sockets
}

// now returns how many connections are open, and were accepted.
func (r *reporter) now() (conns int, accepted uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns, r.total
}

// reportIn tells in a slot of the scoreboard that f is, from now on. It beats until ctx ends, to show that this worker
// works.
func (r *reporter) reportIn(ctx context.Context, f *os.File, slot int) error {
	s, err := mapSlot(f, slot)
	if err != nil {
		return err
	}
	r.mu.Lock()
	first := r.slot == nil
	r.slot = s
	s.Open(r.conns)
	s.Beat()
	r.mu.Unlock()
	if first {
		go r.beat(ctx)
	}
	return nil
}

func mapSlot(f *os.File, slot int) (*scoreboard.Slot, error) {
	b, err := scoreboard.Map(f, slot+1)
	if err != nil {
		return nil, err
	}
	return b.Slot(slot)
}

// tallyIn tells the master in the file that f is, from now on.
func (r *reporter) tallyIn(f *os.File) error {
	s, err := mapSlot(f, 0)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tally = s
	s.Open(r.conns)
	s.Movable(r.kept)
	s.Hogged(r.hogged.Load())
	s.Beat() // once: it does report
	return nil
}

func (r *reporter) beat(ctx context.Context) {
	tick := time.NewTicker(scoreboard.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.mu.Lock()
			r.slot.Beat()
			r.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// accepted notes that a connection was accepted: from the worker's own socket, which the steering is about, or from
// another's.
func (r *reporter) accepted(own bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total++
	r.tally.Accept()
	if own {
		r.slot.Accept()
	}
}

// Served notes that so many more requests were.
func (r *reporter) Served(more uint64) {
	r.served.Add(more)
	if r.resting.Load() {
		r.wake()
	}
}

// Open notes that so many more connections are open.
func (r *reporter) Open(more int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns += more
	r.slot.Open(more)
	r.tally.Open(more)
}

// Movable notes that so many more connections are kept alive that can be handed over.
func (r *reporter) Movable(more int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept += more
	r.tally.Movable(more)
}

// Sheds reports whether one of those is to be handed over, and takes it for done.
func (r *reporter) Sheds() bool {
	for {
		n := r.toShed.Load()
		if n <= 0 {
			return false
		}
		if r.toShed.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// Stays takes that back.
func (r *reporter) Stays() { r.toShed.Add(1) }

// isHogged notes whether some work keeps the rest waiting.
func (r *reporter) isHogged(is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hogged.Store(is)
	r.tally.Hogged(is)
}
