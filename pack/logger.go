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

// FromStdLogger returns a logger that writes to l, one call a record: the message, and the attributes as key=value.
// Records below INFO are left out. Warnings and errors go to l's methods Warn and Error, where it has them as a
// *logrus.Logger has: func(...any). Otherwise all go to Print, with the level in front, unless it is INFO.
//
// A *log.Logger that stands for one of levels, such as zap.NewStdLog returns, makes all of one level. There, have
// [Config.Logger] write to the logger's own handler for log/slog; for zap that is go.uber.org/zap/exp/zapslog.
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
	print, prefix := h.method(r.Level)
	print(strings.TrimSpace(prefix + r.Message + " " + h.text.String()))
	return nil
}

// method returns what writes records of a level, and what is to stand before their messages.
func (h *stdHandler) method(l slog.Level) (print func(...any), prefix string) {
	if l >= slog.LevelError {
		if e, ok := h.out.(interface{ Error(...any) }); ok {
			return e.Error, ""
		}
	} else if l >= slog.LevelWarn {
		if w, ok := h.out.(interface{ Warn(...any) }); ok {
			return w.Warn, ""
		}
	}
	if l != slog.LevelInfo {
		prefix = l.String() + " "
	}
	return h.out.Print, prefix
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
