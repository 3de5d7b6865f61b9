//go:build linux

package pack_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const hangTimeout = "-hangtimeout=1s"

// TestHungIsReplaced has workers hang: stopped by a signal, and in a system call of which the runtime does not know.
// The log must tell, with the stack, and a new one must come; meanwhile the others answer, also what lies in its queue.
func TestHungIsReplaced(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]func(*testing.T, *running) (pid int){
		"stopped": func(t *testing.T, p *running) int {
			pid := p.Workers()[1]
			freeze(t, pid)
			return pid
		},
		"in a system call": func(t *testing.T, p *running) int {
			pid, _ := occupy(t, p, "/block?long")
			return pid
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "http", nil, "-workers=3", hangTimeout)
			p.Addresses()
			pid := hang(t, p)
			if late := p.Logged(1, "worker is late, others serve its queue"); int(late["pid"].(float64)) != pid {
				t.Errorf("%v; want pid %d", late, pid)
			}
			for range 20 {
				if !answersWithin(p.Address(), 10*time.Second) {
					t.Error("a connection was not answered while the worker hangs")
				}
			}
			p.Logged(1, "worker hangs, killing it")
			failed := p.Logged(1, "worker failed")
			error := fmt.Sprint(failed["error"])
			if failed["pid"] != float64(pid) || !strings.Contains(error, "hung: no sign of life for") {
				t.Errorf("%v; want pid %d", failed, pid)
			}
			p.Logged(1, "worker ready")
			p.answer(3, load(p, 16, 20))
			if slices.Contains(p.Workers(), pid) {
				t.Errorf("process %d is still there", pid)
			}
			p.Stop()
			if !p.Said("SIGABRT") || !p.Said("goroutine ") {
				t.Error("it did not write its stack")
			}
		})
	}
}

// TestNotHung has workers that only seem to hang.
func TestNotHung(t *testing.T) {
	t.Parallel()
	t.Run("all late", func(t *testing.T) { // as on a machine that is starved
		t.Parallel()
		p := start(t, "http", nil, "-workers=3", "-hangtimeout=2s")
		p.Addresses()
		workers := p.Workers()
		for _, pid := range workers {
			freeze(t, pid)
		}
		p.Logged(1, "all workers are late: the machine is starved, or was suspended")
		time.Sleep(2 * time.Second) // more than the timeout since they were stopped, and less than three times that
		for _, pid := range workers {
			syscall.Kill(pid, syscall.SIGCONT)
		}
		p.answer(3, load(p, 16, 20)) // the first to go on serves for the others, for a moment
		if now := p.Workers(); !slices.Equal(workers, now) {
			t.Errorf("workers %v became %v", workers, now)
		}
		p.Stop()
	})
	t.Run("computes", func(t *testing.T) {
		t.Parallel()
		p := start(t, "http", nil, "-workers=2", hangTimeout)
		_, c := occupy(t, p, "/spin")
		time.Sleep(3 * time.Second) // three times the timeout
		c.Close()
		for _, msg := range []string{"worker hangs, killing it", "worker failed"} {
			if n := p.Count(msg); n != 0 {
				t.Errorf("%q %d times", msg, n)
			}
		}
		p.Stop()
	})
	t.Run("traced", func(t *testing.T) { // as by a debugger
		t.Parallel()
		p := start(t, "http", nil, "-workers=2", hangTimeout)
		p.Addresses()
		pid := p.Workers()[0]
		runtime.LockOSThread() // whose tracees they are
		defer runtime.UnlockOSThread()
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			t.Fatal(err)
		}
		var traced []int
		for _, e := range threads {
			tid, _ := strconv.Atoi(e.Name())
			if err := syscall.PtraceAttach(tid); err != nil {
				t.Fatalf("ptrace(2): %v", err)
			}
			if _, err := syscall.Wait4(tid, nil, syscall.WALL, nil); err != nil {
				t.Fatal(err)
			}
			traced = append(traced, tid)
		}
		p.Logged(1, "worker hangs, but is traced, as by a debugger: leaving it alone")
		time.Sleep(2 * time.Second)
		for _, tid := range traced {
			syscall.PtraceDetach(tid)
		}
		p.Logged(1, "worker goes on")
		if !slices.Contains(p.Workers(), pid) {
			t.Error("it was killed")
		}
		p.Stop()
	})
	t.Run("only reported", func(t *testing.T) {
		t.Parallel()
		p := start(t, "http", nil, "-workers=2", hangTimeout, "-hang=1")
		p.Addresses()
		pid := p.Workers()[0]
		freeze(t, pid)
		p.Logged(1, "worker hangs")
		syscall.Kill(pid, syscall.SIGCONT)
		p.Logged(1, "worker goes on")
		if !slices.Contains(p.Workers(), pid) {
			t.Error("it was killed")
		}
		p.Stop()
	})
}

// TestProbe has the probe fail in one of two workers, which must be replaced without a request lost; and then in both,
// which must not, since that would help nobody.
func TestProbe(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2", hangTimeout)
	p.Addresses()
	get(t, p, "/unwell")
	under := apply(t, load(p, 8, 0))
	replaced := p.Logged(1, "worker hangs, replacing it")
	if !strings.Contains(replaced["error"].(string), "the database does not answer") {
		t.Error(replaced)
	}
	p.Logged(1, "worker ready")
	loseNothing(t, under)
	before := p.Workers()
	for range 50 { // until both are
		get(t, p, "/unwell")
	}
	time.Sleep(3 * time.Second)
	if after := p.Workers(); !slices.Equal(before, after) || p.Count("worker hangs, replacing it") != 1 {
		t.Errorf("workers %v became %v", before, after)
	}
	p.Stop()
	if !p.Said("the stack of every goroutine") {
		t.Error("it did not write its stack")
	}
}
