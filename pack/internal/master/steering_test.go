package master

import (
	"errors"
	"os"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// boards is a steering whose workers report on files, or nowhere if there is none.
type boards struct {
	Steering
	file *os.File
	left []int
}

func (b *boards) Board() (*os.File, error) {
	if b.file == nil {
		return nil, errors.ErrUnsupported
	}
	return b.file, nil
}

func (b *boards) Join() (int, error) { return 5, nil }

func (b *boards) Leave(slot int) { b.left = append(b.left, slot) }

func (b *boards) Export(string) (*os.File, error) { select {} }

// TestStuckExport has a steering that does not tell what a successor needs: there is none then, and this program goes on.
func TestStuckExport(t *testing.T) {
	t.Parallel()
	m := New(Config{Steering: new(boards)})
	if f, err := m.steering.export(wire.Endpoint{Network: "tcp", Address: ":80"}); f != nil || err == nil {
		t.Errorf("%v, %v", f, err)
	}
}

var joining = roster.Ref{Generation: 1, ID: 2, Attempt: 3}

// TestNoBoard has a worker join where there is no board: the core waits for the answer.
func TestNoBoard(t *testing.T) {
	m := New(Config{Steering: new(boards)})
	m.steering.join(joining)
	if got := m.inbox.take(); len(got) != 1 || got[0].event != (steeringJoined{joining, slotNone}) {
		t.Errorf("%+v", got)
	}
}

// TestBoardOfEnded has workers end before they were told where to report: nothing of that is kept.
func TestBoardOfEnded(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := &boards{file: w}
	m := New(Config{Steering: b})
	m.steering.join(joining)
	if got := m.inbox.take(); len(got) != 1 || got[0].event != (steeringJoined{joining, 5}) {
		t.Errorf("%+v", got)
	}
	m.steering.perform(leaveSteering{joining, 5})
	m.steering.work.flush(nil)
	if len(b.left) != 1 || b.left[0] != 5 || m.steering.board(joining) != nil {
		t.Errorf("slots %v left, board %v", b.left, m.steering.board(joining))
	}
	if err := w.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("close: %v; want that it is closed", err)
	}
}
