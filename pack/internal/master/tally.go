package master

import (
	"os"
	"sync"

	"github.com/gopherpack/gopherpack/internal/scoreboard"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
)

// tallies are where workers report what they have to do to the master alone: a file in memory for each, so that none
// can write what another has to say. Its methods are safe for concurrent use.
type tallies struct {
	mu    sync.Mutex
	slots map[roster.Ref]*scoreboard.Slot
	last  map[roster.Ref]scoreboard.Report // as read
}

// open returns what a worker is to report in, which the caller closes.
func (t *tallies) open(ref roster.Ref) (*os.File, error) {
	f, s, err := scoreboard.New()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots == nil {
		t.slots = map[roster.Ref]*scoreboard.Slot{}
	}
	t.slots[ref] = s
	return f, nil
}

// forget forgets a worker.
func (t *tallies) forget(ref roster.Ref) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.slots, ref)
}

// readAll returns what workers have reported.
func (t *tallies) readAll() map[roster.Ref]scoreboard.Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reports()
}

// reports is called with mu locked.
func (t *tallies) reports() map[roster.Ref]scoreboard.Report {
	all := make(map[roster.Ref]scoreboard.Report, len(t.slots))
	for ref, s := range t.slots {
		all[ref] = s.Read()
	}
	return all
}

// read returns what workers have reported, and whether it has changed since the last call.
func (t *tallies) read() (now map[roster.Ref]scoreboard.Report, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed = len(t.last) != len(t.slots)
	for ref, s := range t.slots {
		changed = changed || s.Read() != t.last[ref]
	}
	if !changed {
		return t.last, false
	}
	t.last = t.reports()
	return t.last, true
}
