//go:build linux

package pack_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// places is which worker has answered each client last. Its methods are safe for concurrent use.
type places struct {
	mu      sync.Mutex
	workers []int // by client; -1 before its first answer
	moves   int   // answers by another worker than before
}

// placesOf has the answers to a load noted.
func placesOf(t *testing.T, l *strictclient.Load) *places {
	p := &places{workers: slices.Repeat([]int{-1}, l.Clients)}
	l.Answer = func(client int, body string) {
		var id int
		if _, err := fmt.Sscanf(body, "id=%d", &id); err != nil {
			t.Errorf("answer %q: %v", body, err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if before := p.workers[client]; before >= 0 && before != id {
			p.moves++
		}
		p.workers[client] = id
	}
	return p
}

// moved returns how many clients were answered by another worker than before.
func (p *places) moved() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.moves
}

// count returns how many clients each of n workers has answered last; nil if some have had no answer yet.
func (p *places) count(n int) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]int, n)
	for _, id := range p.workers {
		if id < 0 || id >= n {
			return nil
		}
		all[id]++
	}
	return all
}

// areEven reports whether n workers have as many clients each, or one more.
func (p *places) areEven(n int) bool {
	all := p.count(n)
	return all != nil && slices.Max(all)-slices.Min(all) <= 1
}

// TestBalance has connections that are kept alive all at one worker, since there was no other when they came, and then
// more workers. They must come to have as many each, without a request that is lost, or a client that connects again,
// and stay.
func TestBalance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		program, network, address string
		workers                   int
	}{
		{"http", "tcp", "localhost:0", 2}, {"http", "tcp", "localhost:0", 4},
		{"http", "unix", t.TempDir() + "/socket", 2}, {"func", "tcp", "localhost:0", 3},
	} {
		t.Run(fmt.Sprintf("%s, %s, %d workers", tt.program, tt.network, tt.workers), func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.program, nil, "-workers=1", "-address="+tt.network+" "+tt.address)
			_, address := p.Listening("pack is up")
			l := loadOn(tt.network, address, 32, 0)
			l.KeepAlive, l.Pause = true, 5*time.Millisecond
			where := placesOf(t, &l)
			keeping := apply(t, l)
			p.Until("all clients to be served", program.Patience, func() bool { return where.areEven(1) })
			for i := range tt.workers - 1 {
				p.Signal(syscall.SIGTTIN)
				p.Logged(i+1, "number of workers changed")
			}
			p.Until("the workers to have as many clients each, and to keep them", program.Patience, func() bool {
				before := where.moved()
				keeping.until(&keeping.answered, keeping.answered.Load()+32*100)
				return where.areEven(tt.workers) && where.moved() == before
			})
			loseNothing(t, keeping)
			p.Stop()
		})
	}
}

// TestHogKeepsNothing has a request compute for long, beside clients that keep their connections: those of the same
// worker go to others, and come back when it is calm.
func TestHogKeepsNothing(t *testing.T) {
	t.Parallel()
	const workers = 3
	p := start(t, "http", nil, fmt.Sprintf("-workers=%d", workers))
	l := loadOn("tcp", p.Address(), 12, 0)
	l.KeepAlive, l.Pause = true, 10*time.Millisecond
	where := placesOf(t, &l)
	keeping := apply(t, l)
	p.Until("the workers to have as many clients each", program.Patience, func() bool { return where.areEven(workers) })
	pid, hog := occupy(t, p, "/spin")
	busy := p.Identities()[pid].ID
	prefer(pid)
	before, since := program.CPUTime(pid), time.Now()
	if !p.Await(program.Patience, func() bool { return where.count(workers)[busy] == 0 }) {
		if used, took := program.CPUTime(pid)-before, time.Since(since); used < took/2 {
			t.Skipf("other processes keep the worker from its CPU: it had %v of %v", used, took)
		}
		t.Fatalf("the busy worker has clients: %v", where.count(workers))
	}
	hog.Close()
	p.Until("it to have its clients again", program.Patience, func() bool { return where.areEven(workers) })
	loseNothing(t, keeping)
	p.Stop()
}

// prefer lets a process have its CPU before others, if this one may, so that no other is what keeps its clients waiting.
func prefer(pid int) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, name := range threads {
		if id, err := strconv.Atoi(filepath.Base(name)); err == nil {
			unix.Setpriority(unix.PRIO_PROCESS, id, -20)
		}
	}
}
