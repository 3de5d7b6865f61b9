//go:build unix

package worker

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/internal/scoreboard"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestScoreboard wants connections of the own socket to be reported, and not those of others.
func TestScoreboard(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "scoreboard"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(3 * scoreboard.SlotSize); err != nil {
		t.Fatal(err)
	}
	b, err := scoreboard.Map(f, 3)
	if err != nil {
		t.Fatal(err)
	}
	slot, err := b.Slot(2)
	if err != nil {
		t.Fatal(err)
	}
	m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	if err := get(dial(t, m.socket), "/"); err != nil {
		t.Fatal(err)
	}
	m.tell(wire.Message{Type: wire.Board, Slot: 2}, f)
	m.tell(wire.Message{Type: wire.Board, Slot: -1}, f)
	m.ping()
	other := listen(t)
	m.tell(cover(1), other.(syscall.Conn))
	if err := get(dial(t, m.socket), "/"); err != nil {
		t.Fatal(err)
	}
	if err := get(dial(t, other), "/"); err != nil {
		t.Fatal(err)
	}
	ours, theirs := socketPair(t)
	m.tell(wire.Message{Type: wire.Handover, Endpoint: &anyPort}, theirs)
	if err := get(ours, "/"); err != nil {
		t.Fatal(err)
	}
	if r := slot.Read(); r.Beat == 0 || r.Open != 4 || r.Accepted != 1 {
		t.Errorf("reported %+v", r)
	}
	before := slot.Read().Beat
	waitFor(t, func() bool { return slot.Read().Beat > before })
	m.tell(wire.Message{Type: wire.Drain})
	m.expectEnd(0)
}

// TestReopen wants the hook to be called again for what is asked while it runs.
func TestReopen(t *testing.T) {
	called, proceed := make(chan struct{}), make(chan struct{})
	c := Config{OnReopen: func() { called <- struct{}{}; <-proceed }}
	m := supervise(t, c, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	m.tell(wire.Message{Type: wire.Reopen})
	<-called
	for range 3 {
		m.tell(wire.Message{Type: wire.Reopen})
	}
	m.ping()
	proceed <- struct{}{}
	<-called
	m.tell(wire.Message{Type: wire.Drain})
	m.expectEnd(0)
	close(proceed)
}
