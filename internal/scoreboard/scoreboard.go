// Package scoreboard is where workers report what they have to do: a file in memory with a cache line for each, which
// its worker maps and stores into, without a system call. There are two of them: that of package steer, which its
// program reads, too, and one for each worker alone, which the master reads, so that it need not ask.
package scoreboard

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"
)

// SlotSize is the size of a worker's part.
const SlotSize = 64

// maxSlots is a sanity check.
const maxSlots = 1 << 20

// Board is a mapped board.
type Board struct{ memory []byte }

// report is the layout of a slot.
type report struct {
	beat     atomic.Uint64
	open     atomic.Uint32
	accepted atomic.Uint32
	movable  atomic.Uint32
	hogged   atomic.Uint32
	_        [SlotSize - 24]byte
}

// Slots returns how many slots there are.
func (b *Board) Slots() int { return len(b.memory) / SlotSize }

// Slot returns a slot.
func (b *Board) Slot(i int) (*Slot, error) {
	if i < 0 || i >= b.Slots() {
		return nil, fmt.Errorf("the board has slots 0 to %d, not %d", b.Slots()-1, i)
	}
	return &Slot{board: b, report: (*report)(unsafe.Pointer(&b.memory[i*SlotSize]))}, nil
}

// Slot is a worker's part of the board. Its methods are safe for concurrent use; one process stores into it. A nil Slot
// takes no note of anything.
type Slot struct {
	board *Board // keeps the memory mapped
	*report
}

// Accept notes that a connection was accepted.
func (s *Slot) Accept() {
	if s != nil {
		s.accepted.Add(1)
	}
}

// Open notes that there are so many more connections; fewer if more is negative, but never fewer than none: a worker
// with billions of them would not be chosen any more.
func (s *Slot) Open(more int) {
	if s != nil {
		add(&s.open, more)
	}
}

// Movable notes that so many more of the connections can be handed over; fewer if more is negative.
func (s *Slot) Movable(more int) {
	if s != nil {
		add(&s.movable, more)
	}
}

func add(n *atomic.Uint32, more int) {
	for {
		before := n.Load()
		after := max(0, int64(before)+int64(more))
		if n.CompareAndSwap(before, uint32(after)) {
			return
		}
	}
}

// Hogged notes whether some of the worker's work keeps the rest of it waiting.
func (s *Slot) Hogged(is bool) {
	if s == nil {
		return
	}
	if is {
		s.hogged.Store(1)
	} else {
		s.hogged.Store(0)
	}
}

// Beat notes that the worker works.
func (s *Slot) Beat() {
	if s != nil {
		s.beat.Add(1)
	}
}

// Every is how often workers beat.
const Every = 50 * time.Millisecond

// Report is what a worker has reported.
type Report struct {
	Beat     uint64 // changes while it works; 0 if it does not beat
	Open     uint32 // connections
	Accepted uint32 // all that it ever has
	Movable  uint32 // connections that are kept alive, and can be handed over
	Hogged   bool   // some of its work keeps the rest waiting
}

// Read returns what was reported last.
func (s *Slot) Read() Report {
	return Report{
		Beat: s.beat.Load(), Open: s.open.Load(), Accepted: s.accepted.Load(), Movable: s.movable.Load(),
		Hogged: s.hogged.Load() != 0,
	}
}

// Clear makes a slot ready for another worker.
func (s *Slot) Clear() {
	s.beat.Store(0)
	s.open.Store(0)
	s.accepted.Store(0)
}
