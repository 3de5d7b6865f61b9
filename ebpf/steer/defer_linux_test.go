package steer

import (
	"math"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// speak opens connections from a CPU, on which the clients say something.
func (p *pool) speak(cpu, n int) {
	p.t.Helper()
	onCPU(p.t, cpu, func() {
		for range n {
			c, err := net.Dial("tcp", p.address())
			if err != nil {
				p.t.Fatal(err)
			}
			p.t.Cleanup(func() { c.Close() })
			c.Write([]byte{0})
		}
	})
}

// TestSilentClients has the kernel let clients in when they have spoken, or after a second (TCP_DEFER_ACCEPT, tcp(7)):
// for so long they were chosen for a worker that has not accepted them. After the next look they are no load, the worker
// does not seem to hang, and when they have come all the same, the counts are right.
func TestSilentClients(t *testing.T) {
	const workers, silent, speaking = 3, 40, 10
	local := cpus(t)[0]
	s := started(t, workers, Epsilon(math.Inf(1)), HungAfter(time.Second), byHand)
	p := serve(t, s, "127.0.0.1:0", workers)
	p.hold = true
	for _, l := range p.listeners {
		err := withDescriptor(l.(syscall.Conn), func(fd int) error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	await := func(n int) {
		t.Helper()
		for range n {
			select {
			case id := <-p.got:
				if id != local {
					t.Errorf("worker %d accepts", id)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("a client is not accepted within 20 s")
			}
		}
	}
	// uncounted returns how many were chosen for the worker and are neither accepted nor given up.
	uncounted := func() int32 {
		w, r := &s.kernel.workers[local], s.slots[s.workers[local].slot].Read()
		return int32(atomic.LoadUint32(&w.Chosen) - atomic.LoadUint32(&w.Lost) - r.Accepted)
	}
	now, open := time.Now(), 0
	for range 2 {
		begun := time.Now()
		p.dial(local, silent)
		if load := s.kernel.load(s, local); load != open+silent {
			t.Errorf("%d clients were chosen, the load is %d", open+silent, load)
		}
		for range 3 {
			now = now.Add(2 * time.Second) // long enough to hang
			s.look(now)
		}
		p.is(local, Up)
		load := s.kernel.load(s, local)
		if time.Since(begun) < time.Second && load != open {
			t.Errorf("the load is %d, of silent clients; want %d", load, open)
		}
		await(silent)
		open += silent
		if load := s.kernel.load(s, local); load != open {
			t.Errorf("the load is %d, of %d that were let in", load, open)
		}
		p.speak(local, speaking)
		await(speaking)
		open += speaking
		s.look(now.Add(time.Second))
		if n, load := uncounted(), s.kernel.load(s, local); n != 0 || load != open {
			t.Errorf("the load is %d, and %d are not counted; want %d and 0", load, n, open)
		}
	}
}
