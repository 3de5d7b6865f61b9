//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// subject is the pack that things are done to.
type subject struct {
	*program.Program
	address string
	workers int // that there are to be
	before  resources
	begun   int // how many lines the log had when the act began
}

// resources is what a master uses.
type resources struct {
	descriptors int
	memory      int // resident set size without files, in KiB
}

const clients = 8 // of each of two loads

// startServer starts a pack, which is this very program.
func startServer(steer bool) (*subject, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), serverEnv+"=hash")
	if steer {
		cmd.Env = append(os.Environ(), serverEnv+"=steer")
	}
	started, err := program.Start(cmd)
	if err != nil {
		return nil, err
	}
	s := &subject{Program: started, workers: 2}
	if !s.Await(10*time.Second, func() bool { return s.logged("pack is up") }) {
		s.Kill()
		return nil, fmt.Errorf("the pack did not start:\n%s", s.recent())
	}
	listening := fmt.Sprint(s.Nth(1, "pack is up")["listening"])
	s.address = strings.TrimSuffix(strings.TrimPrefix(listening, "[tcp "), "]")
	if err := s.settle(); err != nil {
		s.Kill()
		return nil, err
	}
	s.before = s.uses()
	return s, nil
}

// recent returns the log since the act began.
func (s *subject) recent() string { return program.Text(s.Lines(s.begun)) }

// count returns how often the log has had a message since the act began.
func (s *subject) count(msg string) int { return program.Count(s.Lines(s.begun), msg) }

func (s *subject) logged(msg string) bool { return s.count(msg) > 0 }

// uses returns what the master uses.
func (s *subject) uses() resources {
	u := s.Upkeep()
	return resources{u.Descriptors, u.Anonymous}
}

// do does an act under load, and looks what has become of the pack. It returns what became of the requests.
func (s *subject) do(name string, a act, random *rand.Rand) (*strictclient.Result, error) {
	s.begun += len(s.Lines(s.begun))
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
	r := <-results
	other := <-results
	r.Requests += other.Requests
	r.Conns += other.Conns
	for kind, n := range other.Failures {
		r.Failures[kind] += n
	}
	fmt.Printf("%-12s %6.2f s  %v\n", name, took.Seconds(), r)
	if err != nil {
		return r, err
	}
	// Both limits of memory may be reached at once.
	killed = max(killed, strings.Count(s.recent(), "reason=it uses")-s.count("replacing worker"))
	if os.Geteuid() != 0 && strings.Contains(s.recent(), "changing the number of workers") && r.Failed() == 1 {
		// Who may not keep new connections out has the kernel reset one now and then (README, Limits).
		return r, s.check()
	}
	// Each client has one request under way at a worker that is killed, or will send one on a connection to it.
	for kind, n := range r.Failures {
		if strings.Contains(kind, "refused") || strings.Contains(kind, "timeout") || n > 2*clients*killed {
			return r, fmt.Errorf("%d requests were lost, %q, by the end of %d workers", n, kind, killed)
		}
	}
	if r.Failed() > 2*clients*killed {
		return r, fmt.Errorf("%d requests were lost by the end of %d workers", r.Failed(), killed)
	}
	return r, s.check()
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
	for range 20 {
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
	// For each worker there are a lifeline, a pidfd or two, and a socket. After the first upgrade there are some more,
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
	ok := s.Await(10*time.Second, s.Ended)
	if !ok || s.Cmd.ProcessState.ExitCode() != 0 || len(s.Processes()) > 0 {
		return fmt.Errorf("the pack did not stop: %v, workers %v\n%s", s.Err(), s.Workers(), s.recent())
	}
	return nil
}

// signal sends a signal to the master.
func (s *subject) signal(sig syscall.Signal) { s.Cmd.Process.Signal(sig) }

// some returns a worker at random.
func (s *subject) some(random *rand.Rand) (int, error) {
	all := s.Workers()
	if len(all) == 0 {
		return 0, errors.New("there is no worker")
	}
	slices.Sort(all)
	return all[random.IntN(len(all))], nil
}
