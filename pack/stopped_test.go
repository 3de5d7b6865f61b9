//go:build linux

package pack_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// TestTwoOfThreeAreStopped stops two of three workers, one after the other: first the one that covers for others, or
// one that somebody covers for. The third must serve everybody, and when the others go on, they must, too.
func TestTwoOfThreeAreStopped(t *testing.T) {
	t.Parallel()
	starts := map[string]func(t *testing.T, args ...string) *running{
		"by hash": func(t *testing.T, args ...string) *running { return start(t, "http", nil, args...) },
		"steered": func(t *testing.T, args ...string) *running { return steeredPack(t, append(args, "-epsilon=0")...) },
	}
	for how, start := range starts {
		for policy, name := range []string{"kill", "report"} {
			for _, pair := range test.Some(2, [][2]int{{0, 1}, {2, 1}, {1, 0}, {0, 2}, {1, 2}, {2, 0}}) {
				t.Run(fmt.Sprintf("%s, %s, %d and %d", how, name, pair[0], pair[1]), func(t *testing.T) {
					t.Parallel()
					p := start(t, "-workers=3", "-hangtimeout=2s", fmt.Sprintf("-hang=%d", policy))
					p.stopTwo(t, pair, name == "report")
				})
			}
		}
	}
}

func (p *running) stopTwo(t *testing.T, pair [2]int, stay bool) {
	p.Addresses()
	before := p.Workers()
	var stopped []int
	for _, id := range pair {
		stopped = append(stopped, p.pidOf(id))
	}
	for _, pid := range stopped {
		freeze(t, pid)
		const conns = 40
		slowest := time.Duration(0)
		for i := range conns {
			begun := time.Now()
			if !answersWithin(p.Address(), 10*time.Second) {
				t.Errorf("new connection %d is not answered while process %d is stopped", i, pid)
			}
			slowest = max(slowest, time.Since(begun))
		}
		t.Logf("the slowest of %d took %v", conns, slowest)
	}
	for _, pid := range stopped {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	p.HasWorkers(3)
	p.answer(3, load(p, 16, 10))
	if after := p.Workers(); stay && !slices.Equal(before, after) {
		t.Errorf("the workers were %v, and are %v", before, after)
	}
	p.Stop()
}

// covers reports whether one of so many workers serves the queue of another.
func (p *running) covers(workers int) (does bool) {
	n := p.Count("state of a worker")
	p.Signal(syscall.SIGUSR1)
	for i := range workers {
		does = p.Logged(n+i+1, "state of a worker")["coveredBy"] != nil || does
	}
	return does
}

// pidOf returns the process of a worker.
func (p *running) pidOf(id int) int {
	p.t.Helper()
	for pid, is := range p.Identities() {
		if is.ID == id {
			return pid
		}
	}
	p.t.Fatalf("there is no worker %d", id)
	return 0
}

// TestStoppedOften stops a worker for 150 to 400 ms at a time, again and again, under clients that connect.
// Others must serve its queue meanwhile, and nobody after that, and no request may be lost.
func TestStoppedOften(t *testing.T) {
	t.Parallel()
	starts := map[string]func(t *testing.T) *running{
		"by hash": func(t *testing.T) *running { return start(t, "http", nil, "-workers=3", "-level=debug") },
		"steered": func(t *testing.T) *running { return steeredPack(t, "-workers=3", "-level=debug", "-epsilon=0") },
	}
	for how, start := range starts {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := start(t)
			p.Addresses()
			pid := p.pidOf(1)
			under := apply(t, load(p, 16, 0))
			under.until(&under.answered, 100)
			for i := 0; p.Count("another worker serves the queue") < 3; i++ {
				if i == 25 {
					t.Fatal("nobody serves its queue while it is stopped")
				}
				freeze(t, pid)
				time.Sleep(150*time.Millisecond + rand.N(250*time.Millisecond))
				syscall.Kill(pid, syscall.SIGCONT)
				time.Sleep(rand.N(100 * time.Millisecond))
			}
			loseNothing(t, under)
			p.Until("nobody to serve for another", program.Patience, func() bool { return !p.covers(3) })
			p.answer(3, load(p, 16, 10))
			if now := p.pidOf(1); now != pid {
				t.Errorf("it was process %d, and is %d", pid, now)
			}
			p.Stop()
		})
	}
}
