//go:build linux

package pack_test

import (
	"strings"
	"testing"
)

// TestRecycle has workers come to each limit under load: they must be replaced, one at a time, and no request be lost.
func TestRecycle(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, workers, limit, reason string }{
		{"requests", "2", "-maxrequests=1000", "it has served"},
		{"age", "3", "-maxage=700ms", "it is"},
		{"one worker", "1", "-maxage=700ms", "it is"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "http", nil, "-workers="+test.workers, test.limit, hangTimeout, "-generations=20")
			p.Addresses()
			first := p.Workers()
			keeping, connecting := applyBoth(t, p, 8)
			for i := range 4 {
				if r := p.Logged(i+1, "replacing worker"); !strings.HasPrefix(r["reason"].(string), test.reason) {
					t.Error(r)
				}
			}
			loseNothing(t, keeping, connecting)
			if now := p.Workers(); len(first) == len(now) && first[0] == now[0] {
				t.Errorf("workers %v are still there", now)
			}
			p.Stop()
		})
	}
}

// TestRecycleMemory has workers leak: beyond the one limit they are replaced, beyond the other they are killed.
func TestRecycleMemory(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2", "-maxmemory=100000000", "-hardmemory=300000000", hangTimeout)
	p.Addresses()
	for range 1000 {
		if p.Count("replacing worker") > 0 {
			break
		}
		get(t, p, "/leak")
	}
	p.Logged(1, "worker ready")
	if n := p.Count("killing worker"); n != 0 {
		t.Error("a worker was killed at the lower limit")
	}
	p.Stop()

	p = start(t, "http", nil, "-workers=2", "-hardmemory=100000000", hangTimeout)
	p.Addresses()
	for range 1000 {
		if p.Count("killing worker") > 0 {
			break
		}
		l := load(p, 1, 1)
		l.Path = "/leak"
		l.Run(t.Context()) // the last one may be lost
	}
	if r := p.Logged(1, "killing worker"); !strings.Contains(r["reason"].(string), "MiB of memory, and may use 95") {
		t.Error(r)
	}
	p.Logged(1, "worker ready")
	p.Stop()
}
