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
	return newPlainLogger(nil, func(level slog.Level, text string) {
		print, prefix := methodOf(l, level)
		print(prefix + text)
	})
}

// newPlainLogger returns a logger that has each record written by write: the message, and the attributes as key=value.
// Records below a level are left out, by default below INFO.
func newPlainLogger(least slog.Leveler, write func(slog.Level, string)) *slog.Logger {
	var text bytes.Buffer
	attributes := slog.NewTextHandler(&text, &slog.HandlerOptions{
		Level: least,
		// Who writes has a time of its own, and the words in front need no keys.
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
				return slog.Attr{}
			}
			return a
		},
	})
	return slog.New(&plainHandler{write: write, text: &text, lock: new(sync.Mutex), Handler: attributes})
}

// plainHandler lets a TextHandler write the attributes and puts the message before them.
type plainHandler struct {
	slog.Handler
	write func(slog.Level, string)
	text  *bytes.Buffer // what Handler writes to
	lock  *sync.Mutex   // guards text; all handlers derived from one share both
}

func (h *plainHandler) Handle(ctx context.Context, r slog.Record) error {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.text.Reset()
	if err := h.Handler.Handle(ctx, r); err != nil {
		return err
	}
	h.write(r.Level, strings.TrimSpace(r.Message+" "+h.text.String()))
	return nil
}

// methodOf returns what writes records of a level, and what is to stand before their messages.
func methodOf(out StdLogger, l slog.Level) (print func(...any), prefix string) {
	if l >= slog.LevelError {
		if e, ok := out.(interface{ Error(...any) }); ok {
			return e.Error, ""
		}
	} else if l >= slog.LevelWarn {
		if w, ok := out.(interface{ Warn(...any) }); ok {
			return w.Warn, ""
		}
	}
	if l != slog.LevelInfo {
		prefix = l.String() + " "
	}
	return out.Print, prefix
}

func (h *plainHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	derived := *h
	derived.Handler = h.Handler.WithAttrs(attrs)
	return &derived
}

func (h *plainHandler) WithGroup(name string) slog.Handler {
	derived := *h
	derived.Handler = h.Handler.WithGroup(name)
	return &derived
}
