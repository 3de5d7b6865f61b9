//go:build linux

package upgrade_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/upgrade"
)

// asScript makes the test binary a server that does what one test is about; its value is a script and a directory.
const asScript = "UPGRADE_TEST_SCRIPT"

// scripts are what such servers do before they are ready. What fails is handed back.
var scripts = map[string]func(*life) error{}

// life is one process, or program, of such a server.
type life struct {
	*upgrade.Upgrader
	number int // of those before
	dir    string
	ctx    context.Context
}

// is reports whether a test wants something.
func (l *life) is(how string) bool {
	_, err := os.Stat(filepath.Join(l.dir, how))
	return err == nil
}

// say writes a line for the test.
func (l *life) say(words ...any) { fmt.Fprintln(os.Stderr, words...) }

// script runs a script. HUP upgrades, TERM stops.
func script(value string) error {
	scriptName, dir, _ := strings.Cut(value, " ")
	hangups, stops := make(chan os.Signal, 10), make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Notify(stops, syscall.SIGTERM)
	l := &life{dir: dir, ctx: context.Background()}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	for upgrade.Asked() != nil && l.is("slow") {
		time.Sleep(time.Millisecond)
	}
	pidFile := dir + "/pid"
	if l.is("relative") {
		pidFile = "run/pid"
	}
	u, err := upgrade.New(&upgrade.Config{InPlace: l.is("in place"), Path: dir + "/current/server", PIDFile: pidFile})
	if err != nil {
		return fmt.Errorf("New: %w", err)
	}
	l.Upgrader = u
	l.number, _ = strconv.Atoi(string(u.State()))
	u.SetState([]byte(strconv.Itoa(l.number + 1)))
	if u.Returned() != "" {
		l.say("returned:", u.Returned())
	}
	if err := scripts[scriptName](l); err != nil {
		return u.HandBack(err)
	}
	if err := u.Ready(); err != nil {
		return u.HandBack(err)
	}
	l.say("up:", l.number, os.Getpid(), 0, "-", "-")
	go func() {
		for range hangups {
			if err := u.Upgrade(l.ctx); err == nil {
				return
			} else {
				l.say("failed:", err)
			}
		}
	}()
	select {
	case <-u.Done():
	case <-stops:
		if err := u.Close(); err != nil {
			return err
		}
	}
	if l.is("lingers") {
		l.say("draining:", l.number)
	}
	forgets, number := l.is("forgets"), l.number
	for lingers := dir + "/lingers"; forgets; time.Sleep(time.Millisecond) {
		runtime.GC() // nothing refers to the Upgrader
		if _, err := os.Stat(lingers); err != nil {
			fmt.Fprintln(os.Stderr, "done:", number)
			return nil
		}
	}
	for l.is("lingers") {
		time.Sleep(time.Millisecond)
	}
	l.say("done:", number)
	return u.Finish()
}

// perform starts a script.
func perform(t testing.TB, scriptName string, how ...string) *running {
	t.Helper()
	r := prepareServer(t, how...)
	r.run(asScript + "=" + scriptName + " " + r.dir)
	return r
}

// said returns what follows a word in all lines that begin with it, in order, from line n of the log on.
func (r *running) said(n int, word string) (all []string) {
	for _, l := range r.Lines(n) {
		if rest, ok := strings.CutPrefix(l.Text, word+" "); ok {
			all = append(all, rest)
		}
	}
	return all
}

// replace has the server replaced, and returns the first line of what it says from then on.
func (r *running) replace(number int) (line int) {
	r.t.Helper()
	line = len(r.Lines(0))
	r.hangUp()
	r.up(number)
	return line
}
