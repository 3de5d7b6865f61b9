package pack

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"strings"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/output"
)

// The forms of the log, where the program has no logger of its own.
const (
	textForm    = "text"    // as slog.Default() writes
	jsonForm    = "json"    // an object a line
	journalForm = "journal" // the level in front, as systemd's journal reads it, and no time
)

// outputForms are those of what workers write, with Config.PrefixOutput.
var outputForms = map[string]output.Form{textForm: output.Text, jsonForm: output.JSON, journalForm: output.Journal}

// setLogger sets the default logger.
func (c *Config) setLogger() error {
	c.form = os.Getenv(envLog)
	if c.form == "" {
		c.form = textForm
		if systemd.IsJournal(os.Stderr) {
			c.form = journalForm
		}
	}
	if _, ok := outputForms[c.form]; !ok {
		return envError(envLog, c.form, "text, json or journal")
	}
	if c.Logger != nil {
		return nil
	}
	c.Logger = slog.Default()
	if !isOwn(c.Logger) {
		return nil
	}
	switch c.form {
	case jsonForm:
		c.Logger = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: defaultLevel{}}))
	case journalForm:
		c.Logger = newPlainLogger(defaultLevel{}, func(l slog.Level, text string) {
			io.WriteString(os.Stderr, journalLines(priority(l), text))
		})
	}
	return nil
}

// first is what slog.Default() was before main began.
var first = slog.Default()

// isOwn reports whether a logger is what slog.Default() is by itself, and writes to stderr, so that the program has not
// said how and where its log is to be written.
func isOwn(l *slog.Logger) bool {
	return l == first && fmt.Sprintf("%T", l.Handler()) == "*slog.defaultHandler" && log.Writer() == os.Stderr
}

// defaultLevel is the least level that slog.Default() writes: INFO, unless slog.SetLogLoggerLevel has set another.
type defaultLevel struct{}

func (defaultLevel) Level() slog.Level {
	least := slog.LevelError
	for _, l := range []slog.Level{slog.LevelWarn, slog.LevelInfo, slog.LevelDebug} {
		if slog.Default().Enabled(context.Background(), l) {
			least = l
		}
	}
	return least
}

// Priorities of lines, as sd-daemon(3) has them.
const (
	priorityError   = 3
	priorityWarning = 4
	priorityNotice  = 5
	priorityInfo    = 6
	priorityDebug   = 7
)

func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return priorityError
	case l >= slog.LevelWarn:
		return priorityWarning
	case l > slog.LevelInfo:
		return priorityNotice
	case l == slog.LevelInfo:
		return priorityInfo
	}
	return priorityDebug
}

// journalLines returns a text with a priority in front of each of its lines, since to the journal each is an entry.
func journalLines(priority int, text string) string {
	prefix := fmt.Sprintf("<%d>", priority)
	return prefix + strings.ReplaceAll(text, "\n", "\n"+prefix) + "\n"
}
