//go:build linux

package pack_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
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
