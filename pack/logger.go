package pack

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
)

// StdLogger is the interface of the standard library's *log.Logger; a *logrus.Logger and others satisfy it too.
type StdLogger interface {
	Print(...any)
	Printf(string, ...any)
	Println(...any)
	Fatal(...any)
	Fatalf(string, ...any)
	Fatalln(...any)
	Panic(...any)
	Panicf(string, ...any)
	Panicln(...any)
}

// FromStdLogger returns a logger that writes to l, one Print a record: the level, unless it is INFO, the
// message, and the attributes as key=value. Records below INFO are left out.
func FromStdLogger(l StdLogger) *slog.Logger {
	var text bytes.Buffer
	attributes := slog.NewTextHandler(&text, &slog.HandlerOptions{
		// The logger has a time of its own, and the words in front need no keys.
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
				return slog.Attr{}
			}
			return a
		},
	})
	return slog.New(&stdHandler{out: l, text: &text, lock: new(sync.Mutex), Handler: attributes})
}

// stdHandler lets a TextHandler write the attributes and puts the message before them.
type stdHandler struct {
	slog.Handler
	out  StdLogger
	text *bytes.Buffer // what Handler writes to
	lock *sync.Mutex   // guards text; all handlers derived from one share both
}

func (h *stdHandler) Handle(ctx context.Context, r slog.Record) error {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.text.Reset()
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	line := r.Message
	if r.Level != slog.LevelInfo {
		line = r.Level.String() + " " + line
	}
	h.out.Print(strings.TrimSpace(line + " " + h.text.String()))
	return nil
}

func (h *stdHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	derived := *h
	derived.Handler = h.Handler.WithAttrs(attrs)
	return &derived
}

func (h *stdHandler) WithGroup(name string) slog.Handler {
	derived := *h
	derived.Handler = h.Handler.WithGroup(name)
	return &derived
}
