package pack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"
)

// lookEvery is how often a worker looks whether files have changed.
const lookEvery = time.Second

// watchedFiles are files that a worker reads at its start, and again when they have changed. It goes by what is in
// them, not by their times: so it does not matter whether they are written in place, renamed, reached by a link that is
// turned, or copied with the times of others, and there is nothing to be told by the kernel that could be missed.
type watchedFiles struct {
	what  string // is in them, for the log
	paths []string
	take  func(contents [][]byte) error // what is in them; an error leaves what was
	about func() []any                  // what was taken, as attributes of the log
	doubt func() error                  // why what was taken at the start may be of no use; may be nil

	taken [sha256.Size]byte // of the contents
	wrong string            // with the files as they were at the last look
	told  string            // what was wrong when the log was last told
}

// begin reads the files for the first time.
func (w *watchedFiles) begin() error {
	contents, sum, err := w.read()
	if err == nil {
		err = w.take(contents)
	}
	if err != nil {
		return w.explain(err)
	}
	w.taken = sum
	return nil
}

// look reads the files again. What is half-written is whole a moment later, so what is wrong is told when it is so at
// the next look, too, and then once. Such an error is returned; changed tells that something new was taken.
func (w *watchedFiles) look() (changed bool, err error) {
	contents, sum, err := w.read()
	if err == nil && sum == w.taken {
		w.wrong, w.told = "", ""
		return false, nil
	}
	if err == nil {
		err = w.take(contents)
	}
	if err == nil {
		w.taken, w.wrong, w.told = sum, "", ""
		return true, nil
	}
	before := w.wrong
	w.wrong = fmt.Sprintf("%x %v", sum, err)
	if w.wrong != before || w.wrong == w.told {
		return false, nil
	}
	w.told = w.wrong
	return false, w.explain(err)
}

func (w *watchedFiles) read() (contents [][]byte, sum [sha256.Size]byte, err error) {
	all := sha256.New()
	for _, path := range w.paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, sum, err
		}
		fmt.Fprintf(all, "%d ", len(content))
		all.Write(content)
		contents = append(contents, content)
	}
	return contents, [sha256.Size]byte(all.Sum(nil)), nil
}

// explain says where something is wrong, and what to do, as far as one can tell.
func (w *watchedFiles) explain(err error) error {
	where := w.what + " in " + strings.Join(w.paths, ", ")
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w: workers read it, as user %d: let that user, or a group of theirs, do so",
			where, err, os.Getuid())
	}
	return fmt.Errorf("%s: %w", where, err)
}

// watchFiles reads the files that this worker needs, and has what they have become used until ctx ends. All workers see
// the same files, and one of them tells the log of it.
func (p *Pack) watchFiles(ctx context.Context, log *slog.Logger) error {
	all := p.watched
	if path := p.config.TicketKeys; path != "" {
		all = append(all, ticketKeysIn(path))
	}
	if len(all) == 0 {
		return nil
	}
	for _, w := range all {
		if err := w.begin(); err != nil {
			return err
		}
		if w.doubt == nil {
			continue
		}
		if err := w.doubt(); err != nil {
			tell(ctx, log, slog.LevelWarn, "clients may refuse what is served", "error", w.explain(err))
		}
	}
	go func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, w := range all {
				w.report(ctx, log)
			}
		}
	}()
	return nil
}

// report looks at the files, and says what has become of them.
func (w *watchedFiles) report(ctx context.Context, log *slog.Logger) {
	switch changed, err := w.look(); {
	case err != nil:
		tell(ctx, log, slog.LevelWarn, "changed files cannot be used, the old content goes on", "error", err)
	case changed:
		what := append([]any{"what", w.what, "files", w.paths}, w.about()...)
		tell(ctx, log, slog.LevelInfo, "changed files are used", what...)
	}
}

// tell logs what each worker could say, but one of them need.
func tell(ctx context.Context, log *slog.Logger, level slog.Level, msg string, args ...any) {
	if process.id != 0 {
		level = slog.LevelDebug
	}
	log.Log(ctx, level, msg, args...)
}
