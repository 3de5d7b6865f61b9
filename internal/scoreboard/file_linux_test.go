package scoreboard

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNew has another mapping of a file report, as a worker does, and then tries to have its owner end, which a load
// beyond the end of the file does.
func TestNew(t *testing.T) {
	f, own, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := Map(f, 1)
	if err != nil {
		t.Fatal(err)
	}
	worker, err := b.Slot(0)
	if err != nil {
		t.Fatal(err)
	}
	worker.Accept()
	worker.Open(3)
	worker.Movable(2)
	worker.Movable(-1)
	worker.Hogged(true)
	if got, want := own.Read(), (Report{Open: 3, Accepted: 1, Movable: 1, Hogged: true}); got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
	worker.Hogged(false)
	if own.Read().Hogged {
		t.Error("it is still hogged")
	}
	if err := unix.Ftruncate(int(f.Fd()), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("it can be made shorter: %v", err)
	}
	if own.Read().Open != 3 {
		t.Error("it has forgotten something")
	}
}
