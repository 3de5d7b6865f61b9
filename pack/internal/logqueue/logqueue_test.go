package logqueue

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
// is written later, or counted, in this program or in the one that takes its place.
func TestLinesAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		handler := stuck{slog.NewTextHandler(&text, nil), make(chan struct{})}
		q := New(slog.New(handler))
		l := q.Logger().With("worker", 1)
		const more = 7
		q.Lose(2) // by the program before this one
		synctest.Wait()
		for i := range MaxLines + more {
			l.Info(fmt.Sprintf("line %d", i))
		}
		q.Flush()
		if n := q.Left(); n != 2+MaxLines+more {
			t.Errorf("%d lines are left while nothing can be written, want %d", n, 2+MaxLines+more)
		}
		close(handler.read)
		q.Flush()
		if n := q.Left(); n != 0 {
			t.Errorf("%d lines are left", n)
		}
		if n := strings.Count(text.String(), "msg=\"line "); n != MaxLines {
			t.Errorf("%d lines were written, want %d", n, MaxLines)
		}
		if n := strings.Count(text.String(), "worker=1\n"); n != MaxLines {
			t.Errorf("%d lines tell which worker it is", n)
		}
		for _, lines := range []string{"lines=2\n", fmt.Sprintf("lines=%d\n", more)} {
			if !strings.Contains(text.String(), lines) {
				t.Errorf("the log does not tell %q:\n%.500s", lines, text.String())
			}
		}
	})
}
