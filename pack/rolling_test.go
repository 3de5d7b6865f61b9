//go:build linux

package pack_test

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
)

// TestRollingLosesNothing reloads and upgrades worker by worker, once or twice: there may never be more than one worker
// too many.
func TestRollingLosesNothing(t *testing.T) {
	t.Parallel()
	const workers, clients = 3, 4
	p := start(t, "http", nil, "-workers=3", "-rolling", "-drain=1s")
	network, address := p.Listening("pack is up")
	most := p.MostWorkers()
	loads := map[string]*underLoad{}
	for name, l := range map[string]strictclient.Load{
		"new connections":         {},
		"kept alive":              {KeepAlive: true},
		"kept alive, pausing 2 s": {KeepAlive: true, Pause: 2 * time.Second},
		"two-second responses":    {Path: "/slow"},
	} {
		l.Network, l.Address, l.Clients = network, address, clients
		loads[name] = apply(t, l)
		loads[name].until(&loads[name].sent, clients)
	}
	changes := mixed(test.Times(1, 2))
	p.changes(loads["new connections"], changes...)
	for name, u := range loads {
		r := u.finish()
		t.Logf("%s: %v", name, r)
		if r.Failed() != 0 || r.Requests == 0 {
			t.Errorf("%s: %v, %v", name, r, r.Samples[:min(3, len(r.Samples))])
		}
		if strings.HasPrefix(name, "kept alive") && r.Conns != clients {
			t.Errorf("%s: %d clients opened %d connections", name, clients, r.Conns)
		}
	}
	if n := most(); n != workers+1 {
		t.Errorf("there were %d workers at once; want %d", n, workers+1)
	}
	if n, want := p.Count("worker replaced"), len(changes)*(workers-1); n != want {
		t.Errorf("%d lines tell that a worker was replaced; want %d: the last goes with its generation", n, want)
	}
	p.HasWorkers(workers)
	p.IsParent()
	p.Stop()
	if n := p.Count("killing worker") + p.Count("worker failed"); n != 0 {
		t.Errorf("%d workers were killed or failed", n)
	}
}

// TestRollingGoesBack upgrades to executables that fail when some workers, or all, have been replaced; or at the first.
func TestRollingGoesBack(t *testing.T) {
	t.Parallel()
	for _, tt := range test.Some(2, []struct {
		how, env string
		replaced int // at least, before it goes back, and then again
		error    string
	}{
		{how: "dies in worker 1", replaced: 1, error: "a worker failed before it was ready: exit status 6"},
		{how: "bad successor", replaced: 2, error: "OnStart: cannot start the scheduler"},
		{how: "panics", error: "a worker failed before it was ready: exit status 2"},
		{how: "crashes after ready", replaced: 1, error: "a new worker failed within 1s of being ready: exit status 5"},
		{how: "good", env: "PACK_TEST_FAIL_EXEC=1", replaced: 2, error: "no memory for another program"},
	}) {
		t.Run(tt.how, func(t *testing.T) {
			t.Parallel()
			p, path := startVersion(t, func(cmd *exec.Cmd) {
				cmd.Env = append(cmd.Env, tt.env)
			}, "-workers=3", "-rolling", "-minready=1s")
			most := p.MostWorkers()
			p.goesBack(t, path, tt.how, tt.error, 3, func() {
				if n := p.Count("worker replaced"); n < 2*tt.replaced {
					t.Errorf("%d workers were replaced, there and back; want %d at least", n, 2*tt.replaced)
				}
				if n := most(); n > 4 || n < 4 && tt.replaced > 0 { // one that panics at once may not be seen
					t.Errorf("there were %d workers at once; want 4", n)
				}
			})
		})
	}
}

// TestKillDuringRolling kills a new worker, or any process, at steps of an upgrade worker by worker.
func TestKillDuringRolling(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"ready", "exec"} {
		for _, whom := range test.Some(1, []string{"0.2", "0.1", "2.1", "2.2", "master"}) {
			t.Run(step+" "+whom, func(t *testing.T) {
				t.Parallel()
				killDuringUpgrade(t, step, whom, 3, "-rolling", "-minready=50ms")
			})
		}
	}
}

// TestStopDuringRolling stops a pack while it goes from the old workers to the new ones, and while it goes back.
func TestStopDuringRolling(t *testing.T) {
	t.Parallel()
	for _, tt := range test.Some(2, []struct {
		how, msg string
		n        int
	}{
		{"good", "worker replaced", 2},
		{"dies in worker 1", "going back to the old workers", 1},
		{"good", "new workers are starting", 1},
		{"good", "worker replaced", 1},
		{"dies in worker 1", "worker replaced", 1},
	}) {
		t.Run(fmt.Sprintf("%s, %s %d", tt.how, tt.msg, tt.n), func(t *testing.T) {
			t.Parallel()
			p, path := startVersion(t, nil, "-workers=3", "-rolling", "-minready=300ms")
			deploy(t, path, "2", tt.how)
			u := apply(t, load(p, 2, 0))
			u.until(&u.answered, 10)
			p.Signal(syscall.SIGUSR2)
			p.Logged(tt.n, tt.msg)
			p.stopsAmidUpgrade(u)
		})
	}
}
