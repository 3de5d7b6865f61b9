//go:build linux

package pack_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// TestHostileWorker has one of three workers attack the master, each time in another way. It is killed and replaced,
// with one line in the log, and neither the master nor the other workers take harm.
func TestHostileWorker(t *testing.T) {
	t.Parallel()
	as := asHostile(t)
	for _, by := range test.Some(8, []string{
		"listen", "beats", "garbage", "half a message", "descriptors", "shut down", "covered", "end",
		"hello", "ready", "quiesce", "closed", "handoverEnded", "drained", "failed", "tickets", "no vitals",
		"long probe", "connections", "no JSON", "empty messages", "hand over endlessly", "listen to nobody",
		"filter", "deaf", "lock",
	}) {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			a := startHostile(t, as)
			a.attack(by)
			switch by {
			case "half a message", "shut down", "listen to nobody", "filter", "lock": // it is silent, or ends by itself
				a.Logged(1, "worker failed")
			case "failed", "deaf", "covered":
				a.Signal(syscall.SIGHUP) // nothing is wrong yet, and nobody is killed for it before it must drain
				a.Logged(1, "reloaded")
			default:
				a.killsOne()
			}
			a.recovers()
			if n := a.breaches(); n > 1 {
				t.Errorf("%d lines about one attack", n)
			}
			if by == "listen" {
				a.nothingOpened()
			}
			a.stops()
		})
	}
}

// TestHostileDrain has a worker attack the master while it drains.
func TestHostileDrain(t *testing.T) {
	t.Parallel()
	as := asHostile(t)
	for _, by := range test.Some(3, []string{
		"hand over what lingers", "hand over several", "drain half a message", "hand over a listener", "hand over UDP",
		"hand over a pipe", "drain deaf",
	}) {
		for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2} {
			t.Run(fmt.Sprintf("%s at %v", by, signal), func(t *testing.T) {
				t.Parallel()
				a := startHostile(t, as)
				a.order("drain", by)
				a.Signal(signal)
				a.Logged(1, "reloaded", "upgraded")
				a.order("drain", "")
				a.recovers()
				a.Signal(syscall.SIGUSR2)
				a.Logged(2, "reloaded", "upgraded")
				a.recovers()
				a.order("drain", by)
				a.stops()
			})
		}
	}
}

// TestHostileDuringUpgrade has a worker send half a message when the master is about to let go of it.
func TestHostileDuringUpgrade(t *testing.T) {
	t.Parallel()
	a := startHostile(t, asHostile(t))
	for i := range 2 {
		a.attack("half a message")
		a.Signal(syscall.SIGUSR2)
		begun := time.Now()
		a.Logged(i+1, "upgraded")
		t.Logf("upgraded in %v", time.Since(begun))
	}
	a.recovers()
	a.stops()
}

// TestHostileStart has a worker that takes the place of another, or is one of those that are to take over, ask for
// sockets without end.
func TestHostileStart(t *testing.T) {
	t.Parallel()
	a := startHostile(t, asHostile(t))
	before := a.Upkeep()
	a.order("start", "listen")
	syscall.Kill(a.pidOf(hostileID), syscall.SIGKILL)
	a.Until("an answer", program.Patience, func() bool { // which it takes for its own if it waits for one
		return a.Count("worker failed") > 1 || a.Count("the master says what this worker does not understand") > 0
	})
	a.order("start", "")
	a.recovers()
	a.nothingOpened()
	a.order("start", "listen again and again")
	syscall.Kill(a.pidOf(hostileID), syscall.SIGKILL)
	a.killsOne()
	a.order("start", "")
	a.recovers()
	a.order("start", "listen again and again")
	a.Signal(syscall.SIGHUP)
	a.Logged(1, "reload failed, the old workers go on")
	a.order("start", "")
	a.recovers()
	a.Until("sockets that nobody serves to be closed", program.Patience, func() bool {
		return a.Upkeep().Descriptors <= before.Descriptors+3
	})
	a.Signal(syscall.SIGHUP)
	a.Logged(1, "reloaded")
	a.stops()
}

// TestHostileFiles has a worker that may write the directory of a Unix socket put links in its place, again and again,
// while the pack is reloaded, upgraded and stopped. What they lead to is not touched.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	a := startHostile(t, asHostile(t), "unix")
	file := a.dir + "/secret/file"
	if err := os.WriteFile(file, []byte("secret"), 0o640); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	a.swaps = true
	a.attack("swap")
	for i, s := range []syscall.Signal{syscall.SIGUSR2, syscall.SIGHUP, syscall.SIGUSR2} {
		a.Signal(s)
		a.Logged(i+1, "reloaded", "upgraded")
		a.HasWorkers(3)
	}
	a.stops()
	after, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	if before.Mode() != after.Mode() || mine.Uid != theirs.Uid || mine.Gid != theirs.Gid || mine.Ino != theirs.Ino {
		t.Errorf("the file was %v, %+v, and is %v, %+v", before.Mode(), mine, after.Mode(), theirs)
	}
}
