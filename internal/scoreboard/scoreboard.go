// Package scoreboard is where workers report what they have to do: a file in memory with a cache line for each, which
// its worker maps and stores into, without a system call, and the master reads. Package steer's program reads it, too.
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
	_        [SlotSize - 16]byte
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
	if s == nil {
		return
	}
	for {
		before := s.open.Load()
		after := max(0, int64(before)+int64(more))
		if s.open.CompareAndSwap(before, uint32(after)) {
			return
		}
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
}

// Read returns what was reported last.
func (s *Slot) Read() Report {
	return Report{Beat: s.beat.Load(), Open: s.open.Load(), Accepted: s.accepted.Load()}
}

// Clear makes a slot ready for another worker.
func (s *Slot) Clear() {
	s.beat.Store(0)
	s.open.Store(0)
	s.accepted.Store(0)
}
