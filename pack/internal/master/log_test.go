package master

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
)

// stuck is a log that nobody reads until read is closed.
type stuck struct {
	slog.Handler
	read chan struct{}
}

func (s stuck) Handle(ctx context.Context, r slog.Record) error {
	<-s.read
	return s.Handler.Handle(ctx, r)
}

// TestLinesAreLost has nobody read the log while more is written than may wait. What becomes of every line is known: it
// is written later, or counted, by this program or by the one that takes its place.
func TestLinesAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		handler := stuck{slog.NewTextHandler(&text, nil), make(chan struct{})}
		h := newLogHand(slog.New(handler))
		const more = 7
		h.lose(2) // by the program before this one
		synctest.Wait()
		for i := range maxLines + more {
			h.put(logLine{slog.LevelInfo, fmt.Sprintf("line %d", i), nil})
		}
		h.flush()
		if n := h.left(); n != 2+maxLines+more {
			t.Errorf("%d lines are left while nothing can be written, want %d", n, 2+maxLines+more)
		}
		close(handler.read)
		h.flush()
		if n := h.left(); n != 0 {
			t.Errorf("%d lines are left", n)
		}
		if n := strings.Count(text.String(), "msg=\"line "); n != maxLines {
			t.Errorf("%d lines were written, want %d", n, maxLines)
		}
		for _, lines := range []string{"lines=2\n", fmt.Sprintf("lines=%d\n", more)} {
			if !strings.Contains(text.String(), lines) {
				t.Errorf("the log does not tell %q:\n%.500s", lines, text.String())
			}
		}
	})
}
