//go:build linux

package pack_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// TestRollingLosesNothing reloads and upgrades worker by worker: there may never be more than one worker too many.
func TestRollingLosesNothing(t *testing.T) {
	t.Parallel()
	const workers, clients = 3, 4
	p := start(t, "http", nil, "-workers=3", "-rolling", "-drain=1s")
	network, address := p.listening("pack is up")
	most := p.mostWorkers()
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
	p.changes(loads["new connections"], mixed(2)...)
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
	if n, want := p.count("worker replaced"), 4*(workers-1); n != want {
		t.Errorf("%d lines tell that a worker was replaced; want %d: the last goes with its generation", n, want)
	}
	p.hasWorkers(workers)
	p.parents(p.cmd.Process.Pid)
	p.stop()
	if n := p.count("killing worker") + p.count("worker failed"); n != 0 {
		t.Errorf("%d workers were killed or failed", n)
	}
}

// mostWorkers counts the master's living workers, and rehearsals, again and again; the function that it returns tells how many
// there were at most. Go's package os has a child of another kind for a moment, to see what the kernel can do.
func (p *program) mostWorkers() (most func() int) {
	ended, done := atomic.Bool{}, make(chan int)
	go func() {
		most := 0
		for !ended.Load() {
			children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
			// All that there are, before any is looked at: those that live then, live at once. Some may be found with two
			// threads, since those of a thread that ends go to another.
			pids := map[string]bool{}
			for _, file := range children {
				text, _ := os.ReadFile(file)
				for pid := range strings.FieldsSeq(string(text)) {
					pids[pid] = true
				}
			}
			alive := 0
			for pid := range pids {
				env, _ := os.ReadFile("/proc/" + pid + "/environ") // of a zombie it is empty
				if bytes.Contains(env, []byte("GOPHERPACK_IDENTITY=")) || bytes.Contains(env, []byte("GOPHERPACK_REHEARSAL=")) {
					alive++
				}
			}
			most = max(most, alive)
			time.Sleep(2 * time.Millisecond)
		}
		done <- most
	}()
	return func() int {
		ended.Store(true)
		return <-done
	}
}

// TestRollingGoesBack upgrades to executables that fail when some workers, or all, have been replaced.
func TestRollingGoesBack(t *testing.T) {
	for _, tt := range []struct {
		how, env string
		replaced int // at least, before it goes back, and then again
		error    string
	}{
		{how: "panics", error: "a worker failed before it was ready: exit status 2"},
		{how: "dies in worker 1", replaced: 1, error: "a worker failed before it was ready: exit status 6"},
		{how: "crashes after ready", replaced: 1, error: "a new worker failed within 1s of being ready: exit status 5"},
		{how: "bad successor", replaced: 2, error: "OnStart: cannot start the scheduler"},
		{how: "good", env: "PACK_TEST_FAIL_EXEC=1", replaced: 2, error: "no memory for another program"},
	} {
		t.Run(tt.how, func(t *testing.T) {
			t.Parallel()
			p, path := startVersion(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, tt.env) }, "-workers=3", "-rolling", "-canary=1s")
			kept := load(p, 4, 0)
			kept.KeepAlive, kept.Pause = true, 10*time.Millisecond
			loads := []*underLoad{apply(t, kept)}
			if tt.how != "crashes after ready" { // it takes along what it has accepted
				loads = append(loads, apply(t, load(p, 2, 0)))
			}
			for _, u := range loads {
				u.until(&u.answered, 20)
			}
			most := p.mostWorkers()
			deploy(t, path, "2", tt.how)
			p.signal(syscall.SIGUSR2)
			failed := p.logged(1, "upgrade failed, the old workers go on", "upgrade failed, the old executable and workers go on")
			if !strings.Contains(fmt.Sprint(failed["error"]), tt.error) {
				t.Errorf("%v; want an error about %q", failed, tt.error)
			}
			if n := p.count("worker replaced"); n < 2*tt.replaced {
				t.Errorf("%d workers were replaced, there and back; want %d at least", n, 2*tt.replaced)
			}
			p.hasWorkers(3)
			p.answersVersion("1")
			if n := most(); n != 4 {
				t.Errorf("there were %d workers at once; want 4", n)
			}
			deploy(t, path, "3")
			p.signal(syscall.SIGUSR2)
			p.logged(1, "upgraded")
			p.hasWorkers(3)
			p.answersVersion("3")
			for i, u := range loads {
				r := u.finish()
				if r.Failed() != 0 || i == 0 && r.Conns != kept.Clients {
					t.Errorf("%v, %v", r, r.Samples[:min(3, len(r.Samples))])
				}
			}
			p.parents(p.cmd.Process.Pid)
			p.stop()
		})
	}
}

// TestKillDuringRolling kills some process at steps of an upgrade worker by worker.
func TestKillDuringRolling(t *testing.T) {
	for _, step := range []string{"ready", "exec"} {
		for _, whom := range []string{"0.1", "2.1", "0.2", "2.2", "master"} {
			t.Run(step+" "+whom, func(t *testing.T) {
				t.Parallel()
				killDuringUpgrade(t, step, whom, 3, "-rolling", "-canary=50ms")
			})
		}
	}
}

// TestStopDuringRolling stops a pack while it goes from the old workers to the new ones, and while it goes back.
func TestStopDuringRolling(t *testing.T) {
	for i, how := range []string{"good", "good", "good", "dies in worker 1", "dies in worker 1"} {
		t.Run(how+" "+strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			p, path := startVersion(t, nil, "-workers=3", "-rolling", "-canary=300ms")
			deploy(t, path, "2", how)
			u := apply(t, load(p, 2, 0))
			u.until(&u.answered, 10)
			p.signal(syscall.SIGUSR2)
			switch i {
			case 0:
				p.logged(1, "new workers are starting")
			case 3:
				p.logged(1, "going back to the old workers")
			default:
				p.logged(i%3, "worker replaced")
			}
			p.signal(syscall.SIGTERM)
			if status := p.wait(20 * time.Second); status != 0 {
				t.Errorf("exit status %d", status)
			}
			p.until("the end of the log", 20*time.Second, func() bool { return p.silent })
			const late = "connect: connection refused"
			if r := u.finish(); r.Failed() != r.Failures[late] && os.Geteuid() == 0 {
				t.Errorf("%v; want no failure but %q", r, late)
			}
		})
	}
}
