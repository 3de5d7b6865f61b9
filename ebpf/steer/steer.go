// Package steer has the kernel send each connection to the worker that is pinned to the CPU which received it, unless
// that worker is busier than the others, draining, hung or dead; then to the less busy of two others.
//
// The workers are processes or threads, each with a socket of its own on one address (SO_REUSEPORT; see package
// reuseport). A program in the kernel (SK_REUSEPORT, Linux 5.10 or later, CAP_BPF) chooses among the sockets, once per
// TCP connection, or per UDP datagram. It knows how each worker does: workers report how many connections they have by
// storing into shared memory, which takes no system call and no right, and a Steering, in the process that holds the
// sockets, tells it who is there, and how busy a worker may be.
//
// Receiving and serving on one core is a matter of caches. On a machine with few cores do not expect to measure a gain.
// What steering is for is that a connection does not wait for a worker that cannot take it.
//
// Where the kernel refuses the program, a Steering does the next best thing and says so: see Mode.
package steer

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/scoreboard"
)

// Option changes how a Steering steers.
type Option func(*Steering)

// Epsilon bounds the load of the local worker: it is passed over while it has (1+e) times the mean number of
// connections, plus 4, or more. Default 0.25. With math.Inf(1) the local worker always comes first while it is up; with
// 0 it never does, and only load counts.
func Epsilon(e float64) Option { return func(s *Steering) { s.epsilon = e } }

// Require makes Start and Attach fail where the program cannot be used, instead of doing the next best thing.
func Require() Option { return func(s *Steering) { s.require = true } }

// HungAfter is how long a worker that is up may give no sign of life until it is passed over, provided that others give
// one in that time. A beat is one, and an accepted connection; of a worker that does not beat, so is an empty queue. When
// it does something again, it is back. Default 1 s.
func HungAfter(d time.Duration) Option { return func(s *Steering) { s.hungAfter = d } }

// Mode is how connections are steered.
type Mode = string

const (
	EBPF        Mode = "eBPF"            // by the program, as this package is meant
	ByCPU       Mode = "classic BPF"     // by the receiving CPU alone
	IncomingCPU Mode = "SO_INCOMING_CPU" // the same, by a socket option
	Hash        Mode = "hash"            // by the kernel's hash of addresses and ports
)

// State is what a worker is to new connections.
type State uint32

const (
	Absent   State = iota // there is none
	Up                    // it takes connections
	Draining              // it finishes what it has
	Dead                  // it is gone; what is in its queue waits for the next
	Hung                  // it is there, and does nothing
)

var stateNames = []string{"absent", "up", "draining", "dead", "hung"}

// String returns the name of the constant in lower case.
func (s State) String() string {
	if int(s) >= len(stateNames) {
		return fmt.Sprintf("State(%d)", uint32(s))
	}
	return stateNames[s]
}

// MarshalText returns what String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Steering steers connections among workers. Its methods are safe for concurrent use.
type Steering struct {
	epsilon   float64
	require   bool
	hungAfter time.Duration

	mu      sync.Mutex
	mode    Mode
	reason  error // why the mode is not EBPF
	refused error // why the program cannot be used
	kernel  *kernel
	workers []worker
	slots   []*scoreboard.Slot
	taken   []bool // slots
	next    int    // slot to try first
	groups  map[string]*group
	watcher func(worker int, hung bool)
	stop    chan struct{} // closed by Close
	watched sync.WaitGroup
	byHand  bool // tests look themselves
}

// worker is what is known of a worker.
type worker struct {
	cpus  affinity.Set
	state State // as it was set
	slot  int
	hung  bool
	moved time.Time // when it last gave a sign of life
	last  scoreboard.Report
	queue int    // connections that it had not accepted at the last look
	lost  uint32 // connections that were chosen for it and will not come
}

// slack is how many connections more than in proportion are nothing to worry about.
const slack = 4

// New returns a Steering that has not been started.
func New(options ...Option) *Steering {
	s := &Steering{epsilon: 0.25, hungAfter: time.Second, mode: Hash, reason: errNotStarted}
	for _, o := range options {
		o(s)
	}
	return s
}

// Watch has f called, if it is not nil, when a worker that is up is found to hang, and when it goes on, from a
// goroutine of the Steering's. f may call the Steering's methods, but Start and Close.
func (s *Steering) Watch(f func(worker int, hung bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watcher = f
}

// errNotStarted is the error of calls that need Start first.
var errNotStarted = errors.New("it has not been started, or was closed")

// Start gets ready for workers 0 to n-1, each of which is pinned to some CPUs. What CPUs receive that no worker is
// pinned to goes to the nearest: on the same core, cache or node. If the program cannot be used, Start returns nil all
// the same, unless that was required; Mode says why. Started again, it begins anew, with other workers: groups must be
// attached again.
func (s *Steering) Start(workers []affinity.Set) error {
	switch {
	case len(workers) == 0 || len(workers) > maxWorkers:
		return fmt.Errorf("steer: %d workers: there must be 1 to %d", len(workers), maxWorkers)
	case math.IsNaN(s.epsilon) || s.epsilon < 0:
		return fmt.Errorf("steer: epsilon is %v: it must be 0 or more", s.epsilon)
	case s.hungAfter <= 0:
		return fmt.Errorf("steer: HungAfter is %v: it must be more than 0", s.hungAfter)
	}
	s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers = make([]worker, len(workers))
	for i, cpus := range workers {
		s.workers[i] = worker{cpus: cpus, slot: -1}
	}
	if err := s.load(); err != nil {
		s.mode, s.reason, s.refused, s.kernel = Hash, err, err, nil
		if s.require {
			return fmt.Errorf("steer: %w", err)
		}
		return nil
	}
	s.mode, s.reason, s.refused, s.groups = EBPF, nil, nil, map[string]*group{}
	if s.byHand {
		return nil
	}
	stop := make(chan struct{})
	s.stop = stop
	s.watched.Go(func() { s.watch(stop) })
	return nil
}

// Mode returns how connections are steered, and, if it is not by the program, why: before Start and after Close, that
// this Steering does not.
func (s *Steering) Mode() (Mode, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mode, s.reason
}

// Attach steers what comes to a group of sockets, all on one address, of which sockets[i] is worker i's. TCP sockets
// must listen. The caller keeps them open; a closed one is never chosen. It can be called for several groups, such as
// one for HTTP and one for HTTPS, by different names: they share the workers and their loads. Called again by the same
// name, with the same sockets or others, it goes on with these.
//
// A dual-stack group loses its IPv4 connections to whoever listens on the same port of the IPv4 wildcard address.
//
// inherited is what Export returned in a process whose place this one takes, and which has ended or closed its
// Steering: then the program of this Steering follows that of the other without a gap. Without it, nil, and where the
// number of workers is another, the kernel's hash chooses for some milliseconds. Attach closes it.
//
// The program is the group's, not this Steering's: it goes on choosing, by what was last known, when this process has
// ended and others hold the sockets, until another is attached. A socket can be steered by one Steering at a time; the
// former must have been closed, or its process have ended.
func (s *Steering) Attach(name string, sockets []syscall.Conn, inherited *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if inherited != nil {
		defer inherited.Close()
	}
	switch {
	case s.workers == nil:
		return fmt.Errorf("steer: attach: %w", errNotStarted)
	case len(sockets) != len(s.workers):
		return fmt.Errorf("steer: attach: there are %d sockets for %d workers", len(sockets), len(s.workers))
	}
	if err := sameGroup(sockets); err != nil {
		return fmt.Errorf("steer: attach: %w", err)
	}
	if s.kernel == nil {
		return s.attachWithout(sockets)
	}
	for other, g := range s.groups {
		if i, ok := g.holdsAny(sockets); ok && other != name {
			return fmt.Errorf("steer: attach: socket %d is attached already, by the name %q", i, other)
		}
	}
	before := s.groups[name]
	g, err := s.kernel.attach(sockets, inherited, before)
	if err != nil {
		return fmt.Errorf("steer: attach: %w", err)
	}
	if before != nil {
		before.close()
	}
	s.groups[name] = g
	return nil
}

// Export returns what a process that takes the place of this one needs to attach a Steering of its own to the group of
// that name without a gap. The caller passes it on, and closes it. Where there is nothing to export it is nil.
func (s *Steering) Export(name string) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[name]
	if g == nil {
		return nil, nil
	}
	f, err := g.file()
	if err != nil {
		return nil, fmt.Errorf("steer: export: %w", err)
	}
	return f, nil
}

// Join finds a place, a slot, for a process or a thread that is to be a worker, to report in. Nothing is sent to it
// before Up says so. Leave gives the place back. Where the program is not used, it is -1, and nothing is reported: Up
// takes it, and the Reporter for it notes nothing.
func (s *Steering) Join() (slot int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.workers == nil:
		return -1, fmt.Errorf("steer: join: %w", errNotStarted)
	case s.kernel == nil:
		return -1, nil
	}
	for range s.taken {
		i := s.next % len(s.taken) // not the one that was just left: who reported there may be slow to go
		s.next++
		if !s.taken[i] {
			s.taken[i] = true
			s.slots[i].Clear()
			return i, nil
		}
	}
	return -1, fmt.Errorf("steer: all %d places are taken", len(s.taken))
}

// Leave gives a place back when whoever reported in it is gone.
func (s *Steering) Leave(slot int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot >= 0 && slot < len(s.taken) {
		s.taken[slot] = false
	}
}

// Up says that a worker takes connections from now on, and reports in the slot that Join returned.
func (s *Steering) Up(id, slot int) error { return s.set(id, Up, slot) }

// Drain says that a worker takes no connections any more, and finishes what it has.
func (s *Steering) Drain(id int) error { return s.set(id, Draining, -1) }

// Down says that a worker is gone. Connections that wait in its queue do so until another accepts from its socket.
func (s *Steering) Down(id int) error { return s.set(id, Dead, -1) }

// set says what a worker is. Slot -1 is where it reported before.
func (s *Steering) set(id int, state State, slot int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.workers == nil:
		return fmt.Errorf("steer: worker %d: %w", id, errNotStarted)
	case id < 0 || id >= len(s.workers):
		return fmt.Errorf("steer: there is no worker %d, of %d", id, len(s.workers))
	}
	w := &s.workers[id]
	if s.kernel == nil {
		if slot >= 0 {
			return fmt.Errorf("steer: worker %d cannot report in slot %d: %w", id, slot, s.noBoard())
		}
		w.state = state // for Stats
		return nil
	}
	if slot < 0 {
		slot = w.slot
	}
	if state == Up && slot < 0 || slot >= len(s.taken) {
		return fmt.Errorf("steer: worker %d cannot be %v and report in slot %d of %d", id, state, slot, len(s.taken))
	}
	if slot != w.slot {
		w.slot, w.last, w.queue = slot, scoreboard.Report{}, 0
		w.lost = s.kernel.lost(id, w) // nothing was chosen for it yet
	} else if state == Up && w.state != Up {
		w.last, w.queue = s.slots[slot].Read(), s.queued(id)
		w.lost = s.kernel.lost(id, w) // what others have accepted meanwhile
	}
	w.state, w.hung, w.moved = state, false, time.Now()
	if state == Up {
		s.restore(id)
	}
	if err := s.tell(); err != nil {
		return fmt.Errorf("steer: worker %d: %w", id, err)
	}
	return nil
}

// Close ends the watch over the workers and lets go of the program. In groups that have sockets open it goes on
// choosing, by what was last known.
func (s *Steering) Close() error {
	s.mu.Lock()
	stop, k, groups := s.stop, s.kernel, s.groups
	s.stop, s.kernel, s.groups, s.workers, s.slots, s.taken = nil, nil, nil, nil, nil, nil
	s.mode, s.reason, s.refused = Hash, errNotStarted, nil
	s.mu.Unlock()
	if stop != nil {
		close(stop)
		s.watched.Wait()
	}
	var errs []error
	for _, g := range groups {
		errs = append(errs, g.close())
	}
	if k != nil {
		errs = append(errs, k.close())
	}
	return errors.Join(errs...)
}

// maxWorkers is a sanity check.
const maxWorkers = 4096
