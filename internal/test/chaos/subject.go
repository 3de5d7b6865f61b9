//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// subject is the pack that things are done to.
type subject struct {
	*program.Program
	mode    string // how connections come to workers
	address string
	accepts string // the file that tells whose connections were accepted
	workers int    // that there are to be
	before  resources

	// Of the present act.
	begun int               // how many lines the log had when it began
	past  string            // the log of a pack that has ended in it
	dead  map[int]time.Time // workers that were killed
	down  bool              // for a while there was no pack, or is none

	longestGap time.Duration // without a pack
}

// resources is what a master uses.
type resources struct {
	descriptors int
	memory      int // resident set size without files, in KiB
}

const clients = 8 // of each of two loads

// startServer starts a pack.
func startServer(mode string) (*subject, error) {
	s := &subject{mode: mode}
	var err error
	if s.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if s.accepts, err = newAccepts(); err != nil {
		return nil, err
	}
	if _, err := s.launch(0); err != nil {
		os.Remove(s.accepts)
		return nil, err
	}
	if err := s.settle(); err != nil {
		s.end()
		return nil, err
	}
	s.before = s.uses()
	return s, nil
}

// end ends the pack, and removes what it has written.
func (s *subject) end() {
	s.Kill()
	os.Remove(s.accepts)
}

// recent returns the log since the act began.
func (s *subject) recent() string { return s.past + program.Text(s.Lines(s.begun)) }

// count returns how often the log has had a message since the act began.
func (s *subject) count(msg string) int { return program.Count(s.Lines(s.begun), msg) }

func (s *subject) logged(msg string) bool { return s.count(msg) > 0 }

// about returns what finds a record about a worker process, with one of some messages.
func about(pid int, msgs ...string) func(program.Record) bool {
	return func(r program.Record) bool { return r["pid"] == float64(pid) && slices.Contains(msgs, r.Msg()) }
}

// await waits for a record that is as wanted, from a line of the log on; nil if none comes in time.
func (s *subject) await(from int, limit time.Duration, wanted func(program.Record) bool) (r program.Record) {
	s.Await(limit, func() bool {
		for _, l := range s.Lines(from) {
			if l.Record != nil && wanted(l.Record) {
				r = l.Record
				return true
			}
		}
		return false
	})
	return r
}

// lines returns how many lines the log has.
func (s *subject) lines() int { return len(s.Lines(0)) }

// uses returns what the master uses.
func (s *subject) uses() resources {
	u := s.Upkeep()
	return resources{u.Descriptors, u.Anonymous}
}

// do does an act under load, and looks what has become of the pack. It returns what became of the requests.
func (s *subject) do(name string, a act, random *rand.Rand) (toll, error) {
	s.begun = s.lines()
	s.past, s.dead, s.down = "", map[int]time.Time{}, false
	if err := os.Truncate(s.accepts, 0); err != nil {
		return toll{}, err
	}
	load, end := context.WithCancel(context.Background())
	defer end()
	results := make(chan *strictclient.Result, 2)
	for _, keepAlive := range []bool{true, false} {
		l := strictclient.Load{
			Network: "tcp", Address: s.address, Clients: clients, KeepAlive: keepAlive,
			Pause: 2 * time.Millisecond, Timeout: longestWait,
		}
		go func() { results <- l.Run(load) }()
	}
	time.Sleep(50 * time.Millisecond)
	begun := time.Now()
	killed, err := a(s, random)
	if err == nil {
		err = s.settle()
	}
	took := time.Since(begun)
	end()
	r, other := <-results, <-results
	s.countDead()
	t, lost := s.blame(r, other)
	fmt.Printf("%-12s %6.2f s  %v\n", name, took.Seconds(), t)
	if err := errors.Join(err, lost); err != nil {
		return t, err
	}
	// Both limits of memory may be reached at once.
	if name != "leak" && len(s.dead) > killed {
		return t, fmt.Errorf("%d workers have ended, %d at most were to", len(s.dead), killed)
	}
	return t, s.check()
}

const (
	// longestWait is how long a request may take: the only worker may have to be found hung, write its stacks, and be
	// replaced, which may fail first.
	longestWait = 15 * time.Second

	// longestDelay is how long a worker that has failed often may be waited for, if others serve.
	longestDelay = 35 * time.Second
)

// settle waits until there are as many workers as there are to be, which answer.
func (s *subject) settle() error {
	if !s.Await(longestDelay, func() bool { return len(s.Workers()) == s.workers }) {
		return fmt.Errorf("there are workers %v, and should be %d", s.Workers(), s.workers)
	}
	return s.answers(20)
}

// answers has new clients ask for something, one after the other.
func (s *subject) answers(times int) error {
	for range times {
		l := strictclient.Load{Network: "tcp", Address: s.address, Clients: 1, PerClient: 1, Timeout: 5 * time.Second}
		if r := l.Run(context.Background()); r.Failed() > 0 {
			return fmt.Errorf("the service does not answer: %v", r)
		}
	}
	return nil
}

// check compares what the master uses with what it used at first.
func (s *subject) check() error {
	if s.Ended() {
		return errors.New("the master has ended")
	}
	var now resources
	// For each worker there are a control socket, a pidfd or two, and a socket. After the first upgrade there are some more,
	// as of the steering that was inherited, and no more after the next. For memory the collector may take a while.
	ok := s.Await(10*time.Second, func() bool {
		now = s.uses()
		return now.descriptors <= s.before.descriptors+4*max(0, s.workers-2)+6 && now.memory <= s.before.memory+16<<10
	})
	if !ok {
		return fmt.Errorf("the master uses %+v, and used %+v at first", now, s.before)
	}
	return nil
}

// stop stops the pack gracefully.
func (s *subject) stop() error {
	s.signal(syscall.SIGTERM)
	return s.hasStopped()
}

// signal sends a signal to the master.
func (s *subject) signal(sig syscall.Signal) { s.Cmd.Process.Signal(sig) }

// some returns a worker at random.
func (s *subject) some(random *rand.Rand) (int, error) {
	all := s.Workers()
	if len(all) == 0 {
		return 0, errors.New("there is no worker")
	}
	return all[random.IntN(len(all))], nil
}
