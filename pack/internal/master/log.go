package master

import (
	"context"
	"log/slog"

	"github.com/gopherpack/gopherpack/pack/internal/logqueue"
)

// logHand writes the log. Nothing waits for what reads it.
type logHand struct {
	logger *slog.Logger
	*logqueue.Queue
}

func newLogHand(l *slog.Logger) *logHand { return &logHand{l, logqueue.New(l)} }

func (h *logHand) debug(msg string, args ...any) { h.put(logLine{slog.LevelDebug, msg, args}) }

func (h *logHand) put(l logLine) {
	if h.logger.Enabled(context.Background(), l.level) {
		h.Put(func() { h.logger.Log(context.Background(), l.level, l.msg, l.args...) })
	}
}
