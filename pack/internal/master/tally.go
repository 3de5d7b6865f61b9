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

// readAll returns what those workers have reported that do report.
func (t *tallies) readAll() map[roster.Ref]scoreboard.Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reports()
}

// reports is called with mu locked.
func (t *tallies) reports() map[roster.Ref]scoreboard.Report {
	all := make(map[roster.Ref]scoreboard.Report, len(t.slots))
	for ref, s := range t.slots {
		if r := s.Read(); r.Beat != 0 {
			all[ref] = r
		}
	}
	return all
}

// read returns that, whether it has changed since the last call, and whether they have taken connections since.
func (t *tallies) read() (now map[roster.Ref]scoreboard.Report, changed, taken bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	reporting := 0
	for ref, s := range t.slots {
		r := s.Read()
		if r.Beat == 0 {
			continue
		}
		reporting++
		last := t.last[ref]
		changed, taken = changed || r != last, taken || r.Accepted != last.Accepted
	}
	if !changed && reporting == len(t.last) {
		return t.last, false, false
	}
	t.last = t.reports()
	return t.last, true, taken
}
