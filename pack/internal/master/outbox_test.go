package master

import (
	"log/slog"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestOutbox has a worker read nothing, such as one that is traced, while it is asked again and again whether it works,
// and to open its logs anew: it need not be killed for that, but for what must be said and cannot.
func TestOutbox(t *testing.T) {
	m := New(Config{Log: slog.New(slog.DiscardHandler)})
	o := newOutbox(m, joining)
	for range 3 * maxLetters {
		if !o.put(letter{msg: wire.Message{Type: wire.Ping}}) || !o.put(letter{msg: wire.Message{Type: wire.Reopen}}) {
			t.Fatal("it counts as a worker that does not read")
		}
	}
	if n := len(o.letters); n != 2 {
		t.Errorf("%d messages wait", n)
	}
	for range maxLetters - 2 {
		o.put(letter{msg: wire.Message{Type: wire.Tickets}})
	}
	if o.put(letter{msg: wire.Message{Type: wire.Tickets}}) {
		t.Error("it does not count as a worker that does not read")
	}
}
