//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test/acceptlog"
)

// toll is what became of requests.
type toll struct {
	answered int
	killed   int // lost by a worker that was killed, which had accepted the connection
	refused  int // while no pack listened
	closing  int // reset as sockets were closed for good: nobody had accepted the connection
	told     int // lost on the way from one worker to another; the log says so
}

func (t *toll) add(other toll) {
	t.answered += other.answered
	t.killed += other.killed
	t.refused += other.refused
	t.closing += other.closing
	t.told += other.told
}

func (t toll) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d answered", t.answered)
	for _, is := range []struct {
		n    int
		what string
	}{
		{t.killed, "lost by workers that were killed"}, {t.refused, "refused while there was no pack"},
		{t.closing, "reset, unaccepted, as there was no pack any more"}, {t.told, "lost for want of descriptors"},
	} {
		if is.n > 0 {
			fmt.Fprintf(&text, ", %d %s", is.n, is.what)
		}
	}
	return text.String()
}

// unseen is how many connections a worker may have accepted, and not have told of, when it is killed.
const unseen = 4

// blame finds out whose fault it was that requests were lost.
func (s *subject) blame(results ...*strictclient.Result) (t toll, err error) {
	accepted, err := acceptlog.Read(s.accepts)
	if err != nil {
		return t, err
	}
	left := unaccounted{
		// Root keeps new connections out before it closes a socket for good (README, Limits).
		unseen: unseen * len(s.dead), closing: s.down && os.Geteuid() != 0,
		told: s.count("a connection was lost that a worker handed over: the master has no descriptor left (ulimit -n)"),
	}
	if os.Geteuid() != 0 && strings.Contains(s.recent(), "changing the number of workers") {
		left.unseen++ // who may not keep new connections out has the kernel reset one now and then (README, Limits)
	}
	var errs []error
	for _, r := range results {
		t.answered += r.Requests
		known := map[string]int{}
		for _, f := range r.Samples {
			known[f.Kind]++
			if err := s.blameOne(&t, &left, f, accepted); err != nil && len(errs) < 5 {
				errs = append(errs, err)
			}
		}
		for kind, n := range r.Failures {
			if n > known[kind] && strings.Contains(kind, "refused") {
				t.refused += n - known[kind]
			}
		}
	}
	return t, errors.Join(errs...)
}

// unaccounted is how many requests may still be lost of which is not known by whom.
type unaccounted struct {
	unseen, told int
	closing      bool
}

// atOnce is how soon a client notices that a worker was killed.
const atOnce = 500 * time.Millisecond

// blameOne finds out why a request was lost. Usually one worker has accepted the connection, or none.
func (s *subject) blameOne(t *toll, left *unaccounted, f strictclient.Failure, accepted acceptlog.Log) error {
	who := accepted.By(f)
	if slices.ContainsFunc(who, s.isDead) {
		t.killed++
		return nil
	}
	// One that hangs does not tell that it was given a connection.
	if accepted.LetGo(f) && slices.ContainsFunc(slices.Collect(maps.Values(s.dead)), func(died time.Time) bool {
		return f.Ended.Sub(died).Abs() < atOnce
	}) {
		t.killed++
		return nil
	}
	switch {
	case strings.Contains(f.Kind, "timeout"):
	case errors.Is(f.Err, syscall.ECONNREFUSED) && s.down:
		t.refused++
		return nil
	case len(who) == 0 && left.closing:
		t.closing++
		return nil
	case len(who) == 0 && left.unseen > 0:
		left.unseen--
		t.killed++
		return nil
	case len(who) > 0 && left.told > 0:
		left.told--
		t.told++
		return nil
	}
	const precise = "15:04:05.000"
	return fmt.Errorf("a request was lost: %s: %w; from %s, connected at %s, accepted by %v, sent at %s, lost at %s",
		f.Kind, f.Err, f.Local, f.Opened.Format(precise), who, f.Sent.Format(precise), f.Ended.Format(precise))
}

// countDead counts the workers that were killed, or have ended by themselves, by what the log tells. Those do not count
// that had served nothing yet.
func (s *subject) countDead() {
	for _, l := range s.Lines(s.begun) {
		why := fmt.Sprint(l.Record["reason"], l.Record["error"])
		if strings.Contains(why, "it has not come as far as Run") || strings.Contains(why, "before it called Run") {
			continue
		}
		switch l.Record.Msg() {
		case "worker failed", "killing worker", "worker hangs, killing it", "worker stopped":
			if pid, _ := l.Record["pid"].(float64); pid > 0 {
				s.dead[int(pid)], _ = time.Parse(time.RFC3339Nano, fmt.Sprint(l.Record["time"]))
			}
		}
	}
}

// isDead reports whether a worker has ended in the act.
func (s *subject) isDead(pid int) bool {
	_, is := s.dead[pid]
	return is
}
