package master

import (
	"errors"
	"os"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
)

// boardless is a steering in a mode in which workers report nowhere.
type boardless struct{ Steering }

func (boardless) Board() (*os.File, error) { return nil, errors.ErrUnsupported }

// TestNoBoard has a worker join where there is no board: the core waits for the answer.
func TestNoBoard(t *testing.T) {
	m := New(Config{Steering: boardless{}})
	ref := roster.Ref{Generation: 1, ID: 2, Attempt: 3}
	m.steering.join(ref)
	if got := m.inbox.take(); len(got) != 1 || got[0].event != (steeringJoined{ref, slotNone}) {
		t.Errorf("%+v", got)
	}
}
