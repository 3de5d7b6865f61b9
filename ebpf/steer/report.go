package steer

import (
	"fmt"
	"os"

	"github.com/gopherpack/gopherpack/internal/scoreboard"
)

// Board returns a file on which workers in other processes report: pass it on to them, for OpenReporter. The caller
// closes it. Where the program is not used there is none, which is an error.
func (s *Steering) Board() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.workers == nil:
		return nil, fmt.Errorf("steer: board: %w", errNotStarted)
	case s.kernel == nil:
		return nil, fmt.Errorf("steer: board: %w", s.noBoard())
	}
	f, err := boardFile(s.kernel)
	if err != nil {
		return nil, fmt.Errorf("steer: board: %w", err)
	}
	return f, nil
}

// noBoard is the error where the program is not used. It is called with mu locked.
func (s *Steering) noBoard() error {
	return fmt.Errorf("there is no board, since the program is not used: %w", s.refused)
}

// OpenReporter returns where a worker in this process reports, on the board of a Steering in another. f can be closed
// then. A slot of -1, as Join returns where there is no board, is an error: do without a Reporter.
func OpenReporter(f *os.File, slot int) (*Reporter, error) {
	if slot < 0 {
		return nil, fmt.Errorf("steer: there is no slot %d", slot)
	}
	b, err := scoreboard.Map(f, slot+1)
	if err != nil {
		return nil, fmt.Errorf("steer: %w", err)
	}
	r, err := b.Slot(slot)
	if err != nil {
		return nil, fmt.Errorf("steer: %w", err)
	}
	return &Reporter{r}, nil
}

// Reporter returns where a worker in this process reports; one that takes no note of anything for a slot that there is
// not, such as -1. For a worker in another process see Board.
func (s *Steering) Reporter(slot int) *Reporter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot < 0 || slot >= len(s.slots) {
		return &Reporter{}
	}
	return &Reporter{s.slots[slot]}
}

// Reporter is where a worker reports. Its methods are safe for concurrent use.
type Reporter struct{ slot *scoreboard.Slot }

// Accept notes that the worker has accepted a connection.
func (r *Reporter) Accept() {
	r.slot.Accept()
	r.slot.Open(1)
}

// Close notes that it has closed one of the connections that it has noted as accepted. One call too many is ignored
// while it has none: it does not close the Reporter, which need not be closed.
func (r *Reporter) Close() { r.slot.Open(-1) }

// Beat notes that it is not hung. A worker that has done it once must go on, several times within HungAfter.
func (r *Reporter) Beat() { r.slot.Beat() }
