//go:build linux

package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
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
			ctx, cancel := l.ctx, context.CancelFunc(func() {})
			if text, err := os.ReadFile(dir + "/hasty"); err == nil {
				patience, _ := time.ParseDuration(string(text))
				ctx, cancel = context.WithTimeout(ctx, patience)
			}
			err := u.Upgrade(ctx)
			cancel()
			if err == nil {
				return
			}
			l.say("failed:", err)
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

func init() {
	scripts["waits"] = func(l *life) error {
		if l.number > 0 {
			short, cancel := context.WithCancel(l.ctx)
			cancel()
			l.say("waited:", l.WaitParent(short))
			go func() { l.say("alone:", l.number, l.WaitParent(l.ctx)) }()
		}
		return nil
	}
}

// TestWaitsForPredecessor has a successor wait for a predecessor that refers to its Upgrader no more.
func TestWaitsForPredecessor(t *testing.T) {
	t.Parallel()
	r := perform(t, "waits", "lingers", "forgets")
	r.hangUp()
	if got, want := r.next("waited:"), context.Canceled.Error(); got != "upgrade: wait for the predecessor: "+want {
		t.Errorf("it waited, with a context that has ended: %q", got)
	}
	r.up(1)
	r.Until("the predecessor drains", program.Patience, func() bool { return len(r.said(0, "draining:")) > 0 })
	time.Sleep(50 * time.Millisecond) // for what should not happen
	if got := r.said(0, "alone:"); len(got) > 0 {
		t.Error("the successor takes its predecessor for ended")
	}
	r.set("forgets", false) // the successor, that is
	r.set("lingers", false)
	if got := r.next("alone:"); got != "1 <nil>" {
		t.Errorf("alone: %q", got)
	}
	r.stop()
}

// TestPredecessorKeepsNothing has a successor end before its predecessor, which must not hold open where it serves no
// more: clients would wait there for ever.
func TestPredecessorKeepsNothing(t *testing.T) {
	t.Parallel()
	r := perform(t, "sockets", "lingers")
	r.hangUp()
	r.up(1)
	address := strings.Fields(r.said(0, "has:")[0])[2]
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.Until("the successor drains", program.Patience, func() bool { return len(r.said(0, "draining:")) == 2 })
	c.SetDeadline(time.Now().Add(program.Patience))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection that waits in the queue: %v", err)
	}
	if c, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v, %v", c, err)
	}
	r.set("lingers", false)
	r.wait()
}

func init() {
	scripts["fails"] = func(l *life) error {
		if l.number == 0 {
			return l.AddFile("kept", os.Stderr)
		}
		if l.Returned() != "" {
			f, err := l.File("kept")
			if f == nil || err != nil {
				return fmt.Errorf("a file that the successor has removed: %v, %w", f, err)
			}
			return f.Close()
		}
		l.RemoveFile("kept")
		if _, err := l.Listen(l.ctx, "unix", l.dir+"/new"); err != nil {
			return err
		}
		return errors.New("no luck")
	}
}

// TestFailedSuccessorLeavesNoFile has successors open a Unix socket before they fail: the next one finds none.
func TestFailedSuccessorLeavesNoFile(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "fails", how)
		for i := range 2 {
			line := len(r.Lines(0))
			r.hangUp()
			if how == "in place" {
				if got := r.next("returned:"); got != "no luck" {
					t.Errorf("handed back: %q", got)
				}
				r.up(i + 1)
			} else if got := r.next("failed:"); !strings.HasSuffix(got, "it says: no luck") {
				t.Errorf("the upgrade: %q", got)
			}
			if _, err := os.Lstat(r.dir + "/new"); !os.IsNotExist(err) {
				t.Errorf("attempt %d left a file: %v\n%v", i, err, r.Lines(line))
			}
		}
		r.stop()
	})
}

func init() {
	scripts["twice"] = func(l *life) error {
		if l.number > 0 {
			for l.is("slow") {
				time.Sleep(time.Millisecond)
			}
			return nil
		}
		all := make(chan error)
		l.say("not ready:", l.Upgrade(l.ctx))
		go func() {
			for !l.is("go") {
				time.Sleep(time.Millisecond)
			}
			const calls = 3
			for range calls {
				go func() { all <- l.Upgrade(l.ctx) }()
			}
			for range calls {
				l.say("upgrade:", <-all)
			}
		}()
		return nil
	}
}

// TestOneUpgradeAtATime asks for several at once.
func TestOneUpgradeAtATime(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "twice", how, "slow")
		if got, want := r.said(0, "not ready:"), "Ready was not called"; len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("before Ready: %q, want %q", got, want)
		}
		r.set("go", true)
		for range 2 {
			if got := r.next("upgrade:"); got != "upgrade: "+upgrade.ErrInProgress.Error() {
				t.Errorf("one of several upgrades at once: %q", got)
			}
		}
		r.set("slow", false)
		r.Until("the successor is up", program.Patience, func() bool { return len(r.said(0, "up:")) == 2 })
		fmt.Sscan(r.said(0, "up:")[1], new(int), &r.pid)
		r.stop()
	})
}

func init() {
	scripts["started"] = func(l *life) error {
		stdin, err := io.ReadAll(io.LimitReader(os.Stdin, 10))
		environ := slices.Sorted(slices.Values(upgrade.Environ())) // an emulator of processors has them in another order
		l.say("args:", fmt.Sprintf("%q", os.Args[1:]), fmt.Sprintf("%q", environ), string(stdin), err)
		return nil
	}
}

// TestStartedTheSame has successors get arguments and environment to the byte, and standard input, also one that was
// closed.
func TestStartedTheSame(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		for _, redirect := range []string{"", "<&- >&-"} {
			if redirect != "" {
				test.NotEmulated(t, "its file is where standard input was closed")
			}
			r := prepareServer(t, how)
			args := []string{"", " ", "a b", "-x=\n", "\xff", "'\"$HOME\"", "*", ""}
			script := `exec "$0" "$@" ` + redirect
			r.cmd.Args, r.cmd.Path = append([]string{"sh", "-c", script, r.cmd.Path}, args...), "/bin/sh"
			r.run(asScript+"=started "+r.dir, "ODD=a=b \xff\nc", "EMPTY=")
			first := r.said(0, "args:")
			if want := fmt.Sprintf("%q ", args); len(first) != 1 || !strings.HasPrefix(first[0], want) {
				t.Errorf("the arguments are %q, want %s", first, want)
			}
			for i := range 2 {
				line := r.replace(i + 1)
				if again := r.said(line, "args:"); !slices.Equal(again, first) {
					t.Errorf("it was started with\n%q\nand is with\n%q", first, again)
				}
			}
			r.stop()
		}
	})
}

func init() {
	scripts["leaks"] = func(l *life) error {
		cmd := exec.Command("env")
		out, err := cmd.Output()
		if err != nil {
			return err
		}
		l.say("passes:", look(nil).Passed, strings.Contains(string(out), "GOPHERPACK"))
		f, err := l.File("pipe")
		if f == nil && err == nil {
			if f, _, err = os.Pipe(); err == nil {
				err = l.AddFile("pipe", f)
			}
		}
		if err != nil {
			return err
		}
		f.Close()
		listener, err := l.Listen(l.ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		listener.Close()
		l.say("passes:", look(nil).Passed, false)
		return nil
	}
}

// TestProgramsInheritNothing looks at what a program would get that a server or a successor starts.
func TestProgramsInheritNothing(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "leaks", how)
		for i := range 2 {
			r.replace(i + 1)
		}
		all := r.said(0, "passes:")
		for _, got := range all {
			if got != all[0] || strings.HasSuffix(got, "true") { // the test may have passed some on
				t.Errorf("programs get descriptors, or what was meant for the server: %q", all)
			}
		}
		r.stop()
	})
}
