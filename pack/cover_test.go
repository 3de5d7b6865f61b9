//go:build linux

package pack_test

import (
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestQueueOfCrashed kills a worker until its replacement has to wait for seconds. What the kernel sends to its socket
// meanwhile, others must serve before it is there; and when it is back they must have given the socket back.
func TestQueueOfCrashed(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2")
	p.Addresses()
	for kills := 1; ; kills++ {
		if err := syscall.Kill(p.pidOf(1), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.Logged(kills, "worker failed")
		served := false
		if kills >= 5 { // the next process comes after 1 to 2 s then, and after twice that the next time
			p.Until("its process to be gone", inTime, func() bool {
				return p.Complete(1) || p.Nth(kills, "worker ready") != nil
			})
			if r := load(p, 20, 1).Run(t.Context()); r.Failed() != 0 {
				t.Errorf("%v", r)
			}
			served = p.Count("worker ready") < kills
		}
		p.Logged(kills, "worker ready")
		if served {
			break
		}
		if kills == 8 {
			t.Fatal("connections wait for the worker that is not there")
		}
	}
	p.answer(2, load(p, 16, 20))
	p.Stop()
}

// TestQueueOfHung stops a worker, by a signal, and then connects: what lies in its queue, and in nobody's hands yet,
// must be answered although it never goes on.
func TestQueueOfHung(t *testing.T) {
	t.Parallel()
	p := steeredPack(t, "-workers=2", "-epsilon=0")
	pid := p.Workers()[0]
	freeze(t, pid)
	var clients sync.WaitGroup
	for range 40 {
		clients.Go(func() {
			if !answersWithin(p.Address(), 10*time.Second) {
				t.Error("a connection in the queue of the worker that hangs was not answered")
			}
		})
	}
	clients.Wait()
	p.Logged(1, "worker hangs, others serve its queue", "worker takes nothing from its queue, others serve it")
	syscall.Kill(pid, syscall.SIGCONT)
	p.Logged(1, "worker goes on")
	p.becomes("up", 2)
	p.answer(2, load(p, 16, 20))
	p.Stop()
}

// TestHungAndLateGoesOn stops a worker until the steering has found that it hangs, and the master that it is late, who
// has it be steered around. When it goes on it counts as any other: nobody covers for it any more.
func TestHungAndLateGoesOn(t *testing.T) {
	t.Parallel()
	p := steeredPack(t, "-workers=3", "-epsilon=0", "-hangtimeout=10s", "-hang=1")
	pid := p.pidOf(0)
	freeze(t, pid)
	p.Logged(1, "worker hangs, others serve its queue") // after a second
	p.Logged(1, "worker is late, others serve its queue")
	p.becomes("draining", 1)
	syscall.Kill(pid, syscall.SIGCONT)
	p.becomes("up", 3)
	p.answer(3, load(p, 16, 20))
	if p.covers(3) {
		t.Error("it goes on, and another serves its queue")
	}
	p.Stop()
}
