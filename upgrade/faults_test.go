//go:build linux

package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/upgrade"
)

// These tests have servers that are stopped, killed, changed or hung up at a bad moment.

// inBothWays runs a test of a server that is replaced by a new process, and of one that is replaced in place.
func inBothWays(t *testing.T, f func(t *testing.T, how string)) {
	t.Parallel()
	for _, how := range []string{"new process", "in place"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f(t, how)
		})
	}
}

// sizeOfMuch is the size of a state that no socket holds.
const sizeOfMuch = 1 << 20

// many has an Upgrader hand on more files, and a larger state, than a socket holds, and two sockets for one address.
func many(u *upgrade.Upgrader, n int, state string) error {
	var addresses []string
	for range 2 {
		l, err := u.Listen(context.Background(), "tcp", "127.0.0.2:0")
		if err != nil {
			return err
		}
		addresses = append(addresses, l.Addr().String())
		l.Close()
	}
	fmt.Fprintln(os.Stderr, "also:", addresses)
	if n > 0 && len(state) != sizeOfMuch {
		return fmt.Errorf("the state has %d bytes more", len(state))
	}
	files, err := numbered(400)
	if err != nil {
		return err
	}
	for i, f := range files {
		name := fmt.Sprint("file ", i)
		if n == 0 {
			err = u.AddFile(name, f)
		}
		f.Close()
		if err != nil {
			return err
		}
		got, err := u.File(name)
		if got == nil || err != nil {
			return fmt.Errorf("%s: %v, %w", name, got, err)
		}
		text, err := io.ReadAll(io.NewSectionReader(got, 0, 10))
		got.Close()
		if string(text) != fmt.Sprint(i) || err != nil {
			return fmt.Errorf("%s holds %q, %w", name, text, err)
		}
	}
	return nil
}

// TestMany hands on more than a socket holds.
func TestMany(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := start(t, how, "many")
		also := regexp.MustCompile(`(?m)^also: \[(\S+) (\S+)\]`)
		first := also.FindStringSubmatch(r.Text())
		if first[1] == first[2] {
			t.Errorf("two sockets have one address: %v", first)
		}
		for i := range 2 {
			r.hangUp()
			again := r.Says(also)
			if again[0] != first[0] {
				t.Errorf("the sockets were %q and are %q", first[0], again[0])
			}
			r.up(i + 1)
		}
		r.stop()
	})
}

// TestSuccessorHandsBack has successors that find that they cannot go on.
func TestSuccessorHandsBack(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		for flag, why := range map[string]string{"refuses": "no luck", "wrong": "a negative ReadyTimeout or MaxDraining"} {
			r := start(t, how, "many")
			pid := r.pid
			for i := range 2 {
				r.set(flag, true)
				r.hangUp()
				n := i
				if how == "in place" {
					n = 2*i + 1
					if got := r.next("returned:"); !strings.Contains(got, why) {
						t.Errorf("handed back: %q, want %q", got, why)
					}
					r.up(n)
				} else if got := r.next("failed:"); !strings.Contains(got, "it says: ") || !strings.Contains(got, why) {
					t.Errorf("the upgrade failed: %q, want %q", got, why)
				}
				r.set(flag, false)
				if r.pid != pid {
					t.Errorf("process %d serves, not %d", r.pid, pid)
				}
				r.hangUp()
				r.up(n + 1)
				pid = r.pid
			}
			r.stop()
		}
	})
}

// TestClosesBeforeReady has a successor that is stopped before it is ready: its predecessor goes on.
func TestClosesBeforeReady(t *testing.T) {
	t.Parallel()
	r := start(t, "closes")
	r.hangUp()
	if got := r.next("error:"); !strings.Contains(got, upgrade.ErrDone.Error()) {
		t.Errorf("Ready after Close: %q, want %q", got, upgrade.ErrDone)
	}
	if got, want := r.next("failed:"), "it ended before it was ready: exit status 1"; !strings.Contains(got, want) {
		t.Errorf("the upgrade: %q, want %q", got, want)
	}
	r.answered(0)
	r.stop()
}

// TestStoppedDuringUpgrade stops a server whose successor is not ready, and does not even read what it is sent.
func TestStoppedDuringUpgrade(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		for _, successor := range []string{"hangs", "never ready"} {
			if how == "in place" && successor == "never ready" {
				continue
			}
			r := start(t, how, "many")
			r.set(successor, true)
			r.hangUp()
			if successor == "never ready" {
				r.next("also:")
			}
			for len(r.Processes()) < 2 {
				time.Sleep(time.Millisecond)
			}
			if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if got := r.next("failed:"); !strings.Contains(got, upgrade.ErrDone.Error()) {
				t.Errorf("the upgrade: %q, want %q", got, upgrade.ErrDone)
			}
			r.wait()
		}
	})
}

// TestGivesUpAtAnyMoment has upgrades end with their context, early and late: there is one server then, the old one or
// the new one, never both, and never none.
func TestGivesUpAtAnyMoment(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "nothing", how)
		number, steps := 0, test.Times(16, 160)
		for i := range steps {
			patience := time.Duration(i) * 80 * time.Millisecond / time.Duration(steps)
			if err := os.WriteFile(r.dir+"/hasty", []byte(patience.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			r.hangUp()
			line := r.Says(regexp.MustCompile("^(?:failed|up): .*"))[0]
			if n, _ := fmt.Sscanf(line, "up: %d %d", &number, &r.pid); n != 2 && !strings.Contains(line, "deadline exceeded") {
				t.Errorf("step %d: %q", i, line)
			}
			r.Until("one process is left", program.Patience, func() bool { return slices.Equal(r.Processes(), []int{r.pid}) })
			r.hasPID()
		}
		failed := len(r.said(0, "failed:"))
		if up := len(r.said(0, "up:")); failed+up != steps+1 {
			t.Errorf("of %d upgrades %d have failed and %d have not", steps, failed, up-1)
		}
		t.Logf("%d of %d upgrades have failed", failed, steps)
		r.stop()
	})
}

// TestFailuresLeaveNothing fails again and again, and looks at what that has cost.
func TestFailuresLeaveNothing(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		for _, bad := range []string{"exits", "refuses"} {
			if how == "in place" && bad == "refuses" {
				continue // it starts anew
			}
			r := start(t, how)
			r.set(bad, true)
			fail := func(times int) {
				for range times {
					r.hangUp()
					r.next("failed:")
				}
			}
			fail(1)
			before := r.Upkeep()
			fail(test.Times(10, 100))
			now := before
			r.Await(program.Patience, func() bool { // the last one may not be gone yet
				now = r.Upkeep()
				return now.Descriptors <= before.Descriptors && now.Children == 0
			})
			if now.Descriptors > before.Descriptors || now.Children > 0 {
				t.Errorf("%s: it had %+v and has %+v", bad, before, now)
			}
			r.stop()
		}
	})
}

func init() {
	scripts["slow"] = func(l *life) error {
		if err := scripts["sockets"](l); err != nil {
			return err
		}
		l.say("taken:", l.number)
		for l.number == 1 && l.is("slow") {
			time.Sleep(time.Millisecond)
		}
		return nil
	}
}

// TestKilledBeforeReady kills a server whose successor has everything, and is not ready: it takes over.
func TestKilledBeforeReady(t *testing.T) {
	t.Parallel()
	r := perform(t, "slow", "slow")
	first := r.said(0, "has:")
	r.hangUp()
	r.next("taken: 1")
	if err := syscall.Kill(r.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.Until("the end of the predecessor", program.Patience, r.Ended)
	r.set("slow", false)
	r.up(1)
	if again := r.said(0, "has:"); !slices.Equal(again[len(first):], first) {
		t.Errorf("the sockets were\n%q\nand are\n%q", first, again[len(first):])
	}
	line := r.replace(2)
	if again := r.said(line, "has:"); !slices.Equal(again, first) {
		t.Errorf("the sockets were\n%q\nand are\n%q", first, again)
	}
	r.stop()
}

// TestStoppedAtAnyMoment stops a server while it is replaced: either there is no successor then, or one that serves.
func TestStoppedAtAnyMoment(t *testing.T) {
	t.Parallel()
	taken := 0
	steps := test.Times(12, 120)
	for i := range steps {
		r := start(t)
		r.hangUp()
		time.Sleep(time.Duration(i) * 40 * time.Millisecond / time.Duration(steps))
		syscall.Kill(r.pid, syscall.SIGTERM) // which may have ended
		var up []string
		r.Until("the end, or a successor", program.Patience, func() bool {
			silent := r.Silent()
			up = r.said(0, "up:")
			return silent || len(up) == 2
		})
		if len(up) == 2 {
			taken++
			fmt.Sscan(up[1], new(int), &r.pid)
			r.answered(1)
			r.stop()
		} else {
			r.wait()
		}
		if t.Failed() {
			t.Fatalf("step %d", i)
		}
	}
	t.Logf("%d of %d successors took over", taken, steps)
}

// TestStoppedWhileDraining stops a server that is about to become its successor.
func TestStoppedWhileDraining(t *testing.T) {
	t.Parallel()
	r := start(t, "in place", "lingers")
	r.hangUp()
	r.next("draining: 0")
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.set("lingers", false)
	r.wait()
	if r.Said("up: 1") {
		t.Error("the successor was started")
	}
}

// TestReplacedWhileDraining puts another file in the place of the one that was tried out.
func TestReplacedWhileDraining(t *testing.T) {
	t.Parallel()
	r := start(t, "in place", "lingers")
	r.hangUp()
	r.next("draining: 0")
	if err := os.Mkdir(r.dir+"/v2", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := program.WriteExecutable(r.dir+"/v2/server", []byte("#!/bin/sh\nexit 3\n")); err != nil {
		t.Fatal(err)
	}
	r.link("v2")
	r.set("lingers", false)
	r.up(1)
	r.stop()
}

// TestHungUpEarly sends HUP to a successor that has no handler for it yet.
func TestHungUpEarly(t *testing.T) {
	t.Parallel()
	r := start(t, "in place")
	r.set("slow", true)
	r.hangUp()
	r.next("slow:")
	r.hangUp()
	r.set("slow", false)
	r.up(1)
	r.stop()
}

// TestKilledBeforeNew kills a server whose successor has not called New: it takes over, or ends.
func TestKilledBeforeNew(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.set("slow", true)
	r.hangUp()
	r.next("slow:")
	if err := syscall.Kill(r.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.set("slow", false)
	if got := r.Says(regexp.MustCompile("^up: 1 ([0-9]+)|^error: New: upgrade: take over")); got[1] != "" {
		fmt.Sscan(got[1], &r.pid)
		r.answered(1)
		r.stop()
	} else if l, err := net.Listen("tcp", r.tcp); err != nil {
		t.Errorf("the port is still bound: %v", err)
	} else {
		l.Close()
	}
}

// TestSuccessorStartsWhereItsPredecessorDid has servers that go elsewhere.
func TestSuccessorStartsWhereItsPredecessorDid(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := start(t, how, "elsewhere")
		where, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		r.hangUp()
		if got := r.next("in:"); got != where {
			t.Errorf("the successor was started in %s, want %s", got, where)
		}
		r.up(1)
		r.stop()
	})
}

// TestRelativePath removes a Unix socket whose name was relative, from another directory.
func TestRelativePath(t *testing.T) {
	defer upgrade.ForgetNew()
	dir := t.TempDir()
	t.Chdir(dir)
	u, err := upgrade.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := u.Listen(t.Context(), "unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("/")
	if err := errors.Join(l.Close(), u.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir + "/socket"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestGroup opens several sockets for one address.
func TestGroup(t *testing.T) {
	defer upgrade.ForgetNew()
	u, err := upgrade.New(&upgrade.Config{ListenConfig: &net.ListenConfig{
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			return errors.Join(cerr, err)
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	address, sockets := "127.0.0.1:0", map[uint64]bool{}
	for range 3 {
		l, err := u.Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		address = l.Addr().String()
		rc, err := l.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		rc.Control(func(fd uintptr) {
			var s unix.Stat_t
			if err := unix.Fstat(int(fd), &s); err != nil {
				t.Error(err)
			}
			sockets[s.Ino] = true
		})
	}
	if len(sockets) != 3 {
		t.Errorf("there are %d sockets, want 3", len(sockets))
	}
}
