package steer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/reuseport"
)

// pool is workers of one process, each a goroutine with a listener of its own.
type pool struct {
	t         *testing.T
	s         *Steering
	listeners []net.Listener
	reporters []*Reporter
	slots     []int
	got       chan int              // who accepted
	stopped   map[int]chan struct{} // closed when a worker accepts no more

	mu    sync.Mutex
	conns []net.Conn
	hold  bool // connections are kept open

	greets bool // clients send a byte, and close when the other side has

	accepted func(id int, c net.Conn) // if set, is called with mu locked
}

// started returns a Steering of n workers; worker i is pinned to CPU i, and has none where there are fewer CPUs. The
// test is skipped where the program cannot be loaded.
func started(t *testing.T, n int, options ...Option) *Steering {
	t.Helper()
	s := New(append([]Option{Require()}, options...)...)
	if err := s.Start(onePerCPU(t, n)); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func onePerCPU(t *testing.T, n int) (workers []affinity.Set) {
	t.Helper()
	allowed, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		var set affinity.Set
		if allowed.Contains(i) {
			set.Add(i)
		}
		workers = append(workers, set)
	}
	return workers
}

// serve starts n workers that listen on an address, all of them up. If s is nil, nobody steers.
func serve(t *testing.T, s *Steering, address string, n int) *pool {
	t.Helper()
	p := &pool{t: t, s: s, got: make(chan int, 10000), stopped: map[int]chan struct{}{}}
	var err error
	if p.listeners, err = reuseport.ListenGroup(t.Context(), "tcp", address, n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	if s == nil {
		p.reporters = slices.Repeat([]*Reporter{{}}, n)
		for id := range n {
			p.accept(id)
		}
		return p
	}
	if err := s.Attach("test", conns(p.listeners), nil); err != nil {
		t.Fatal(err)
	}
	for id := range n {
		slot, err := s.Join()
		if err != nil {
			t.Fatal(err)
		}
		p.slots = append(p.slots, slot)
		p.reporters = append(p.reporters, s.Reporter(slot))
		if err := s.Up(id, slot); err != nil {
			t.Fatal(err)
		}
		p.accept(id)
	}
	return p
}

func conns(listeners []net.Listener) (all []syscall.Conn) {
	for _, l := range listeners {
		all = append(all, l.(syscall.Conn))
	}
	return all
}

// accept has a worker accept what comes.
func (p *pool) accept(id int) {
	l, r, stopped := p.listeners[id], p.reporters[id], make(chan struct{})
	p.stopped[id] = stopped
	go func() {
		defer close(stopped)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.Accept()
			p.mu.Lock()
			if p.accepted != nil {
				p.accepted(id, c)
			}
			if p.hold {
				p.conns = append(p.conns, c)
			} else {
				c.Close()
				r.Close()
			}
			p.mu.Unlock()
			p.got <- id
		}
	}()
}

func (p *pool) close() {
	for _, l := range p.listeners {
		l.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

// connect opens connections from a CPU and returns how many each worker accepted.
func (p *pool) connect(cpu, n int) []int {
	p.t.Helper()
	got := make([]int, len(p.listeners))
	p.dial(cpu, n)
	for range n {
		select {
		case id := <-p.got:
			got[id]++
		case <-time.After(5 * time.Second):
			p.t.Fatalf("of %d connections only %v were accepted within 5 s", n, got)
		}
	}
	return got
}

// dial opens connections from a CPU, and closes them unless they are to be held.
func (p *pool) dial(cpu, n int) {
	p.t.Helper()
	onCPU(p.t, cpu, func() {
		for range n {
			c, err := net.Dial("tcp", p.address())
			if err != nil {
				p.t.Fatal(err)
			}
			if p.greets {
				c.Write([]byte{0})
				io.Copy(io.Discard, c)
			}
			p.mu.Lock()
			if p.hold {
				p.conns = append(p.conns, c)
			} else {
				c.Close()
			}
			p.mu.Unlock()
		}
	})
}

// address returns where to connect to, without a choice for which net.Dial would start other goroutines.
func (p *pool) address() string {
	address := p.listeners[0].Addr().String()
	if port, ok := strings.CutPrefix(address, "[::]:"); ok {
		return "127.0.0.1:" + port // a group of both families
	}
	return address
}

// onCPU runs f on a CPU; its connections to this machine are received there.
func onCPU(t *testing.T, cpu int, f func()) {
	t.Helper()
	undo, err := affinity.Pin(affinity.Of(cpu))
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	f()
}

// cpus returns the CPUs that clients can be on.
func cpus(t *testing.T) []int {
	t.Helper()
	allowed, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(allowed.All())
}

// TestLocality connects from each CPU in turn: the worker there must get everything, of which the kernel's hash would
// give it one in n.
func TestLocality(t *testing.T) {
	n := slices.Max(cpus(t)) + 1
	each := 400 / len(cpus(t))
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		s := started(t, n, Epsilon(math.Inf(1)))
		p := serve(t, s, address, n)
		hashed := serve(t, nil, address, n)
		for _, cpu := range cpus(t) {
			if got := hashed.connect(cpu, each); n > 1 && got[cpu] == each {
				t.Errorf("%s: all %d connections from CPU %d stayed there, though nobody steers", address, each, cpu)
			} else {
				t.Logf("%s: of %d connections from CPU %d %d stay there by hash", address, each, cpu, got[cpu])
			}
			if got := p.connect(cpu, each); got[cpu] != each {
				t.Errorf("%s: %d connections from CPU %d were accepted by %v", address, each, cpu, got)
			}
		}
		stats, err := s.Stats()
		if err != nil {
			t.Fatal(err)
		}
		for _, cpu := range cpus(t) {
			if w := stats.Workers[cpu]; w.Local < uint64(each) || w.Local > uint64(2*each) || w.Balanced+w.Spilled+stats.Hashed != 0 || w.ByCPU[cpu] != w.Local {
				t.Errorf("%s\n%v", address, stats)
			}
		}
	}
}

// TestLocalityPacket sends datagrams from each CPU.
func TestLocalityPacket(t *testing.T) {
	n := slices.Max(cpus(t)) + 1
	s := started(t, n, Epsilon(math.Inf(1)))
	sockets, err := reuseport.ListenPacketGroup(t.Context(), "udp", "127.0.0.1:0", n)
	if err != nil {
		t.Fatal(err)
	}
	var members []syscall.Conn
	for _, c := range sockets {
		defer c.Close()
		members = append(members, c.(syscall.Conn))
	}
	if err := s.Attach("test", members, nil); err != nil {
		t.Fatal(err)
	}
	for id := range n {
		slot, _ := s.Join()
		if err := s.Up(id, slot); err != nil {
			t.Fatal(err)
		}
	}
	for _, cpu := range cpus(t) {
		onCPU(t, cpu, func() {
			for i := range 50 {
				c, err := net.Dial("udp", sockets[0].LocalAddr().String())
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(c, i)
				c.Close()
				sockets[cpu].SetReadDeadline(time.Now().Add(5 * time.Second))
				buf := make([]byte, 10)
				if nr, _, err := sockets[cpu].ReadFrom(buf); err != nil || string(buf[:nr]) != fmt.Sprint(i) {
					t.Fatalf("datagram %d from CPU %d: %q, %v", i, cpu, buf[:nr], err)
				}
			}
		})
	}
}

// TestBound opens all connections from one CPU, and keeps them: its worker must not have more than the others by more
// than the bound allows, though nobody tells it between two looks.
func TestBound(t *testing.T) {
	const workers, conns = 4, 400
	for _, epsilon := range []float64{0, 0.25, 1, math.Inf(1)} {
		s := started(t, workers, Epsilon(epsilon))
		p := serve(t, s, "127.0.0.1:0", workers)
		p.mu.Lock()
		p.hold = true
		p.mu.Unlock()
		got := p.connect(cpus(t)[0], conns)
		t.Logf("epsilon %v: %v", epsilon, got)
		local := cpus(t)[0]
		switch {
		case math.IsInf(epsilon, 1):
			if got[local] != conns {
				t.Errorf("epsilon %v: %v; want all on worker %d", epsilon, got, local)
			}
		// What was under way at a look is counted a little late.
		case float64(slices.Max(got)) > math.Ceil((1+epsilon)*conns/workers)+slack+4:
			t.Errorf("epsilon %v: %v; want none above (1+epsilon) of the mean, and %d", epsilon, got, slack+4)
		}
	}
}

// TestStates says of a worker that it drains, is dead, or is back, and looks at who gets the next connection.
func TestStates(t *testing.T) {
	const workers = 3
	s := started(t, workers, Epsilon(math.Inf(1)))
	p := serve(t, s, "127.0.0.1:0", workers)
	local := cpus(t)[0]
	set := func(id int, state State) {
		t.Helper()
		if err := s.set(id, state, -1); err != nil {
			t.Fatal(err)
		}
	}
	for _, state := range []State{Draining, Dead, Absent, Hung} {
		set(local, state)
		if got := p.connect(local, 100); got[local] != 0 {
			t.Errorf("%v: %v", state, got)
		}
		set(local, Up)
		if got := p.connect(local, 100); got[local] != 100 {
			t.Errorf("up again after %v: %v", state, got)
		}
	}
	for id := range workers { // nobody is up: the kernel's hash must do
		set(id, Dead)
	}
	if got := p.connect(local, 100); slices.Contains(got, 0) {
		t.Errorf("nobody up: %v", got)
	}
	stats, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if w := stats.Workers[local]; w.Draining < 100 || w.Dead < 300 || w.Hung < 100 || w.Local < 400 || w.Local > 800 || stats.Hashed < 100 {
		t.Errorf("\n%v", stats)
	}
}

// byHand has a test look at the workers, at times of its own.
func byHand(s *Steering) { s.byHand = true }

// TestHung has a worker stop to accept, and one stop to beat. Both are passed over, until they work again.
func TestHung(t *testing.T) {
	const workers, step = 3, 100 * time.Millisecond
	local := cpus(t)[0]
	t.Run("leaves its queue", func(t *testing.T) {
		s := started(t, workers, HungAfter(2*step), byHand)
		p := serve(t, s, "127.0.0.1:0", workers)
		p.stall(local)
		p.dial(local, 1)
		p.awaitQueue(local)
		now := time.Now()
		s.look(now)
		p.is(local, Up)
		s.look(now.Add(3 * step))
		p.is(local, Hung)
		if got := p.connect(local, 50); got[local] != 0 {
			t.Errorf("%v", got)
		}
		p.accept(local)
		<-p.got
		s.look(now.Add(4 * step))
		p.is(local, Up)
	})
	t.Run("does not beat", func(t *testing.T) {
		s := started(t, workers, HungAfter(4*step), byHand)
		p := serve(t, s, "127.0.0.1:0", workers)
		now := time.Now()
		// pass has time pass, in which all beat but some.
		pass := func(steps int, silent ...int) {
			for range steps {
				for id, r := range p.reporters {
					if !slices.Contains(silent, id) {
						r.Beat()
					}
				}
				now = now.Add(step)
				s.look(now)
			}
		}
		pass(1)
		pass(4, local)
		p.is(local, Up)
		pass(1, local)
		p.is(local, Hung)
		if got := p.connect(local, 50); got[local] != 0 {
			t.Errorf("%v", got)
		}
		pass(1)
		p.is(local, Up)
		pass(20, 0, 1, 2) // all of them: a slow machine
		for id := range workers {
			p.is(id, Up)
		}
	})
}

// TestWatch has a Steering find by itself that a worker hangs, and that it goes on.
func TestWatch(t *testing.T) {
	local := cpus(t)[0]
	s := started(t, 3, HungAfter(200*time.Millisecond))
	type finding struct {
		worker int
		hung   bool
	}
	found := make(chan finding, 10)
	s.Watch(func(worker int, hung bool) { found <- finding{worker, hung} })
	p := serve(t, s, "127.0.0.1:0", 3)
	expect := func(want finding) {
		t.Helper()
		select {
		case got := <-found:
			if got != want {
				t.Errorf("%+v; want %+v", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not found within 10 s: %+v", want)
		}
	}
	p.stall(local)
	p.dial(local, 1)
	expect(finding{local, true})
	p.is(local, Hung)
	p.accept(local)
	expect(finding{local, false})
	p.is(local, Up)
}

// TestFullQueue has a worker that beats, and does not accept, behind a short queue: the kernel, which chooses before it
// looks whether there is room, drops what does not fit, and its client tries again a second later. The bound keeps the
// queue from being full; without it, it becomes full.
func TestFullQueue(t *testing.T) {
	const backlog, conns, some = 8, 100, 3 // one or two get there before a busy machine has seen that the queue is full
	local := cpus(t)[0]
	for _, epsilon := range []float64{0.25, math.Inf(1)} {
		s := started(t, 3, Epsilon(epsilon))
		p := serve(t, s, "127.0.0.1:0", 3)
		p.stall(local)
		l := p.listeners[local].(*net.TCPListener)
		raw, err := l.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), backlog) })
		if err != nil {
			t.Fatal(err)
		}
		onCPU(t, local, func() {
			for i := 0; i < conns && dropped(t, raw) < some; i++ {
				if c, err := net.DialTimeout("tcp", p.address(), 500*time.Millisecond); err == nil {
					defer c.Close()
				}
			}
		})
		n := dropped(t, raw)
		t.Logf("epsilon %v: %d connections found no room", epsilon, n)
		if full := math.IsInf(epsilon, 1); full && n == 0 || !full && n >= some {
			t.Errorf("epsilon %v: %d of %d connections found no room", epsilon, n, conns)
		}
	}
}

// dropped returns how often a listening socket had no room for a connection.
func dropped(t *testing.T, raw syscall.RawConn) (n uint32) {
	t.Helper()
	var info [9]uint32 // SK_MEMINFO_VARS, the last of which is SK_MEMINFO_DROPS
	size := uint32(unsafe.Sizeof(info))
	var errno syscall.Errno
	err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err != nil || errno != 0 {
		t.Fatal(err, errno)
	}
	return info[8]
}

// TestShares has workers of several CPUs each: whichever of these receives, the connection is theirs.
func TestShares(t *testing.T) {
	all := cpus(t)
	if len(all) < 2 {
		t.Skip("there is one CPU")
	}
	half := len(all) / 2
	shares := []affinity.Set{affinity.Of(all[:half]...), affinity.Of(all[half:]...)}
	s := New(Require(), Epsilon(math.Inf(1)))
	if err := s.Start(shares); errors.Is(err, unix.EPERM) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := serve(t, s, "127.0.0.1:0", 2)
	for i, cpu := range all {
		want := i / half
		if got := p.connect(cpu, 20); got[min(want, 1)] != 20 {
			t.Errorf("workers of the CPUs %v: from CPU %d, %v accepted", shares, cpu, got)
		}
	}
}

// stall makes a worker's Accept return, and nobody call it again, as if it hung.
func (p *pool) stall(id int) {
	p.listeners[id].(*net.TCPListener).SetDeadline(time.Unix(1, 0))
	<-p.stopped[id]
	p.listeners[id].(*net.TCPListener).SetDeadline(time.Time{})
}

// awaitQueue waits until a connection is in a worker's queue.
func (p *pool) awaitQueue(id int) {
	p.t.Helper()
	err := withDescriptor(p.listeners[id].(syscall.Conn), func(fd int) error {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
			switch {
			case errors.Is(err, unix.EINTR):
			case err == nil && n == 0:
				return os.ErrDeadlineExceeded
			default:
				return err
			}
		}
	})
	if err != nil {
		p.t.Fatalf("nothing came into the queue of worker %d: %v", id, err)
	}
}

// is fails the test unless a worker is in a state.
func (p *pool) is(id int, want State) {
	p.t.Helper()
	stats, err := p.s.Stats()
	if err != nil {
		p.t.Fatal(err)
	}
	if got := stats.Workers[id].State; got != want {
		p.t.Fatalf("worker %d is %v, not %v:\n%v", id, got, want, stats)
	}
}

// TestStrangers has a socket join the group that the program knows nothing of.
func TestStrangers(t *testing.T) {
	s := started(t, 2)
	p := serve(t, s, "127.0.0.1:0", 2)
	stranger, err := reuseport.Listen(t.Context(), "tcp", p.listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for _, cpu := range cpus(t) {
		p.connect(cpu, 100)
	}
}

// TestWildcard has somebody listen on the IPv4 wildcard address beside a dual-stack group: that is another group to the
// kernel, which takes what is IPv4, and the program is not asked.
func TestWildcard(t *testing.T) {
	s := started(t, 2)
	p := serve(t, s, ":0", 2)
	_, port, err := net.SplitHostPort(p.listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := reuseport.Listen(t.Context(), "tcp4", "0.0.0.0:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p.dial(cpus(t)[0], 10) // over IPv4
	for range 10 {
		c, err := other.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if len(p.got) != 0 {
		t.Errorf("the group got %d of what the other listener takes", len(p.got))
	}
}

// TestSocketCloses closes a worker's socket: others take its connections, and nobody else's place changes.
func TestSocketCloses(t *testing.T) {
	workers := max(3, slices.Max(cpus(t))+1)
	s := started(t, workers, Epsilon(math.Inf(1)))
	p := serve(t, s, "127.0.0.1:0", workers)
	local := cpus(t)[0]
	other := cpus(t)[len(cpus(t))-1]
	p.listeners[local].Close()
	if got := p.connect(local, 100); got[local] != 0 {
		t.Errorf("%v", got)
	}
	if other != local {
		if got := p.connect(other, 100); got[other] != 100 {
			t.Errorf("%v", got)
		}
	}
}

// TestSocketClosesMoves closes a socket in whose queue connections lie. Since Linux 5.14 they move to another, chosen
// by the program; before that they are reset, which is why nobody should close one.
func TestSocketClosesMoves(t *testing.T) {
	const queued = 20
	s := started(t, 3, Epsilon(math.Inf(1)))
	p := serve(t, s, "127.0.0.1:0", 3)
	local := cpus(t)[0]
	p.stall(local)
	p.mu.Lock()
	p.hold = true
	p.mu.Unlock()
	p.dial(local, queued)
	p.listeners[local].Close()
	if s.kernel.old {
		return // they were reset
	}
	// Kernels before the spring of 2026 do not wake whoever waits for them; one more connection does.
	for _, id := range []int{0, 1, 2} {
		if id != local {
			if err := s.Drain(id); err != nil {
				t.Fatal(err)
			}
			p.dial(local, 1)
			if err := s.Up(id, p.slots[id]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range queued + 2 {
		select {
		case id := <-p.got:
			if id == local {
				t.Errorf("worker %d accepted from a closed socket", id)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%d of %d connections were accepted", i, queued+2)
		}
	}
	stats, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if moved := stats.Workers[0].Balanced + stats.Workers[1].Balanced + stats.Workers[2].Balanced; moved < queued {
		t.Errorf("%d moved\n%v", moved, stats)
	}
}

// TestManyWorkers has more workers than there are CPUs.
func TestManyWorkers(t *testing.T) {
	const workers = 300
	s := started(t, workers, Epsilon(0.25))
	p := serve(t, s, "127.0.0.1:0", workers)
	p.mu.Lock()
	p.hold = true
	p.mu.Unlock()
	got := p.connect(cpus(t)[0], workers)
	if most := slices.Max(got); float64(most) > math.Ceil(1.25)+slack+4 {
		t.Errorf("%d connections on one of %d workers, of %d in all", most, workers, workers)
	}
}

// TestStartsAnew attaches another Steering to a group that has one, as the successor of a master does.
func TestStartsAnew(t *testing.T) {
	s := started(t, 2, Epsilon(math.Inf(1)))
	p := serve(t, s, "127.0.0.1:0", 2)
	local := cpus(t)[0]
	for range 5 {
		next := started(t, 2, Epsilon(math.Inf(1)))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := p.connect(local, 10); got[local] != 10 {
			t.Errorf("between two: %v", got)
		}
		if err := next.Attach("test", conns(p.listeners), nil); err != nil {
			t.Fatal(err)
		}
		for id := range 2 {
			slot, err := next.Join()
			if err != nil {
				t.Fatal(err)
			}
			if err := next.Up(id, slot); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.connect(local, 100); got[local] != 100 {
			t.Errorf("%v", got)
		}
		s = next
	}
}

// TestAttachAgain attaches sockets that are attached: the steering must go on, with those that were passed last.
func TestAttachAgain(t *testing.T) {
	s := started(t, 2, Epsilon(math.Inf(1)))
	p := serve(t, s, "127.0.0.1:0", 2)
	local := cpus(t)[0] % 2
	steers := func(when string, want int) {
		t.Helper()
		if got := p.connect(cpus(t)[0], 50); got[want] != 50 {
			t.Errorf("%s: %v; want all at %d", when, got, want)
		}
	}
	for range 3 {
		if err := s.Attach("test", conns(p.listeners), nil); err != nil {
			t.Fatal(err)
		}
		steers("the same again", local)
	}
	swapped := []syscall.Conn{p.listeners[1].(syscall.Conn), p.listeners[0].(syscall.Conn)}
	if err := s.Attach("test", swapped, nil); err != nil {
		t.Fatal(err)
	}
	steers("in another order", 1-local)
	if err := s.Attach("test", conns(p.listeners), nil); err != nil {
		t.Fatal(err)
	}
	steers("in the first order", local)
	one := p.listeners[0].(syscall.Conn)
	for want, attach := range map[string]func() error{
		`socket 0 is attached already, by the name "test"`: func() error {
			return s.Attach("other", conns(p.listeners), nil)
		},
		"socket 1 is the same as socket 0": func() error { return s.Attach("test", []syscall.Conn{one, one}, nil) },
	} {
		if err := attach(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
		steers(want, local)
	}
	p.replace(local)
	if err := s.Attach("test", conns(p.listeners), nil); err != nil {
		t.Fatal(err)
	}
	steers("with another socket", local)
}

// replace has a worker listen on another socket of the same address.
func (p *pool) replace(id int) {
	p.t.Helper()
	l, err := reuseport.Listen(p.t.Context(), "tcp", p.listeners[id].Addr().String())
	if err != nil {
		p.t.Fatal(err)
	}
	p.listeners[id].Close()
	<-p.stopped[id]
	p.listeners[id] = l
	p.accept(id)
}

// TestInherits has one Steering after another steer a group: none of many connections meanwhile may go elsewhere.
func TestInherits(t *testing.T) {
	s := started(t, 2, Epsilon(math.Inf(1)))
	p := serve(t, s, "127.0.0.1:0", 2)
	local := cpus(t)[0]
	ctx, cancel := context.WithCancel(t.Context())
	connected, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		undo, err := affinity.Pin(affinity.Of(local))
		if err != nil {
			t.Error(err)
			return
		}
		defer undo()
		for ctx.Err() == nil {
			c, err := net.Dial("tcp", p.address())
			if err == nil {
				c.Close()
			} else if !errors.Is(err, syscall.EPIPE) { // its FIN came first: it was accepted, and closed
				t.Error(err)
				return
			}
			select {
			case connected <- struct{}{}:
			default: // nobody waits for it now
			}
		}
	}()
	for range 10 {
		f, err := s.Export("test")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = started(t, 2, Epsilon(math.Inf(1)))
		for id := range 2 {
			slot, err := s.Join()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Up(id, slot); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Attach("test", conns(p.listeners), f); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			select {
			case <-connected:
			case <-gone:
				t.FailNow()
			}
		}
	}
	cancel()
	<-gone
	n := 0
	for len(p.got) > 0 {
		if id := <-p.got; id != local {
			t.Errorf("connection %d went to worker %d", n, id)
		}
		n++
	}
	t.Logf("%d connections", n)
	// One with another number of workers begins anew.
	f, err := s.Export("test")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := started(t, 1).Attach("test", conns(p.listeners)[:1], f); err != nil {
		t.Error(err)
	}
}

// TestSlotsAreReused has processes come and go.
func TestSlotsAreReused(t *testing.T) {
	s := started(t, 2, Epsilon(math.Inf(1)))
	p := serve(t, s, "127.0.0.1:0", 2)
	local := cpus(t)[0]
	for range 10000 {
		slot, err := s.Join()
		if err != nil {
			t.Fatal(err)
		}
		s.Reporter(slot).Accept()
		s.Leave(slot)
	}
	slot, err := s.Join()
	if err != nil {
		t.Fatal(err)
	}
	if r := s.slots[slot].Read(); r.Open != 0 || r.Accepted != 0 {
		t.Errorf("a new worker finds %+v", r)
	}
	if err := s.Up(local, slot); err != nil {
		t.Fatal(err)
	}
	if got := p.connect(local, slack); got[local] != slack {
		t.Errorf("%v", got)
	}
	for {
		if _, err := s.Join(); err != nil {
			if !strings.Contains(err.Error(), "all 64 places are taken") {
				t.Error(err)
			}
			break
		}
	}
}

// TestNearest has CPUs without a worker of their own, on a machine with two nodes of two caches of two cores of two
// threads.
func TestNearest(t *testing.T) {
	var machine affinity.Topology
	span := func(cpu, size int) (s affinity.Set) {
		for i := range size {
			s.Add(cpu/size*size + i)
		}
		return s
	}
	for cpu := range 16 {
		machine = append(machine, affinity.CPU{ID: cpu, Core: span(cpu, 2), Cache: span(cpu, 4), Package: span(cpu, 8), Node: cpu / 8})
	}
	for _, tt := range []struct {
		workers string // CPUs of each
		want    []int  // the worker of each CPU
	}{
		{"0 2 4 6 8 10 12 14", []int{0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7}}, // the other thread of the core
		{"0 4 8 12", []int{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3}},           // the same cache
		{"0-3 4-7 8-11 12-15", []int{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3}}, // its own
		{"0 8", []int{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1}},                // the same node
		{"0 1 8", []int{0, 1, 0, 1, 0, 1, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2}},              // in turn
		{"0 1", []int{0, 1, 0, 1, 0, 1, 0, 1, -1, -1, -1, -1, -1, -1, -1, -1}},        // nobody near
	} {
		var workers []affinity.Set
		for cpus := range strings.FieldsSeq(tt.workers) {
			set, err := affinity.Parse(cpus)
			if err != nil {
				t.Fatal(err)
			}
			workers = append(workers, set)
		}
		all := nearest(machine, workers)
		got := make([]int, len(machine))
		for cpu := range got {
			id, ok := all[cpu]
			if !ok {
				id = -1
			}
			got[cpu] = id
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("workers on %s: CPUs go to %v, want %v", tt.workers, got, tt.want)
		}
	}
}

// TestLocked has one of those that have a socket lock it, so that it takes no program: the group gets it by another.
func TestLocked(t *testing.T) {
	s := started(t, 2)
	group, err := reuseport.ListenGroup(t.Context(), "tcp", "127.0.0.1:0", 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range group {
		defer l.Close()
	}
	if err := withDescriptor(group[0].(syscall.Conn), func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Attach("test", conns(group), nil); err != nil {
		t.Error(err)
	}
}

// TestMistakes tries what cannot be.
func TestMistakes(t *testing.T) {
	s := New()
	var none []syscall.Conn
	if err := s.Attach("test", none, nil); !errors.Is(err, errNotStarted) {
		t.Error(err)
	}
	for _, bad := range []struct {
		s       *Steering
		workers int
		want    string
	}{
		{New(), 0, "there must be 1 to 4096"}, {New(), 5000, "there must be 1 to 4096"},
		{New(Epsilon(-1)), 1, "epsilon is -1"}, {New(Epsilon(math.NaN())), 1, "epsilon is NaN"}, {New(HungAfter(0)), 1, "HungAfter is 0s"},
	} {
		if err := bad.s.Start(make([]affinity.Set, bad.workers)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%v; want %q", err, bad.want)
		}
	}
	s = started(t, 2)
	one, err := reuseport.ListenGroup(t.Context(), "tcp", "127.0.0.1:0", 2)
	if err != nil {
		t.Fatal(err)
	}
	two, err := reuseport.ListenGroup(t.Context(), "tcp", "127.0.0.1:0", 2)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range append(slices.Concat(one, two), plain) {
		defer l.Close()
	}
	for want, sockets := range map[string][]net.Listener{
		"there are 1 sockets for 2 workers": one[:1],
		"socket 1: it is on 127.0.0.1:":     {one[0], two[0]},
		"it was bound without SO_REUSEPORT": {plain, plain},
	} {
		if err := s.Attach("test", conns(sockets), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	closed := New()
	if err := errors.Join(closed.Start(onePerCPU(t, 2)), closed.Close()); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*Steering{"not started": New(), "closed": closed} {
		_, board := s.Board()
		_, join := s.Join()
		_, stats := s.Stats()
		_, mode := s.Mode()
		for what, err := range map[string]error{
			"Board": board, "Join": join, "Stats": stats, "Mode": mode, "Up": s.Up(0, 0), "Down": s.Down(0),
		} {
			if !errors.Is(err, errNotStarted) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
	for want, err := range map[string]error{
		"there is no worker 2, of 2":                   s.Up(2, 0),
		"worker 0 cannot be up and report in slot -1":  s.Up(0, -1),
		"worker 0 cannot be up and report in slot 999": s.Up(0, 999),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// TestListensAgain has a worker whose socket was shut down, and listens again, be chosen as before.
func TestListensAgain(t *testing.T) {
	s := started(t, 2)
	p := serve(t, s, "127.0.0.1:0", 2)
	socket := p.listeners[1].(syscall.Conn)
	known := func() (is bool) {
		withDescriptor(socket, func(fd int) error { is = s.groups["test"].holds(1, fd); return nil })
		return is
	}
	err := withDescriptor(socket, func(fd int) error {
		return errors.Join(unix.Shutdown(fd, unix.SHUT_RD), unix.Listen(fd, 100))
	})
	if err != nil || known() {
		t.Errorf("%v, and the program knows a socket that was shut down: %v", err, known())
	}
	if err := errors.Join(s.Down(1), s.Up(1, p.slots[1])); err != nil || !known() {
		t.Errorf("%v, and the program knows the socket: %v", err, known())
	}
}
