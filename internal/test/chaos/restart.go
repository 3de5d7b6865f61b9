//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/program"
)

// launch starts a pack, which is this very program, and waits until it is up. It tries again as long as the address is
// in use, as a service manager would, and returns how often it has tried.
func (s *subject) launch(patience time.Duration) (tries int, err error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), serverEnv+"="+s.mode, addressEnv+"="+s.address, acceptsEnv+"="+s.accepts)
		p, err := program.Start(cmd)
		if err != nil {
			return tries, err
		}
		tries++
		up := func() bool { return p.Count("pack is up") > 0 }
		if p.Await(10*time.Second, func() bool { return up() || p.Ended() && p.Silent() }) && up() {
			s.Program, s.begun, s.workers = p, 0, firstWorkers
			return tries, nil
		}
		p.Kill()
		if !strings.Contains(p.Text(), "address already in use") || time.Now().After(end) {
			return tries, fmt.Errorf("the pack did not start:\n%s", p.Text())
		}
	}
}

// anew starts the pack anew after its end, and notes how long there was none.
func (s *subject) anew(since time.Time) error {
	s.countDead()
	s.past = s.recent()
	tries, err := s.launch(shutdownTimeout + 10*time.Second)
	if err != nil {
		return err
	}
	gap := time.Since(since)
	fmt.Printf("%-12s there was no pack for %v, which was started %d times\n", "", gap.Round(time.Millisecond), tries)
	s.longestGap = max(s.longestGap, gap)
	return nil
}

// killMaster kills the master, and starts the pack anew at once: the workers finish what they have, and end, even if
// nobody reads what they say about it.
func killMaster(s *subject, random *rand.Rand) (int, error) {
	old, workers := s.Program, s.workers
	stalled := random.IntN(3) == 0
	if stalled {
		defer s.Flood(syscall.SIGUSR1, 500)()
	}
	s.down = true
	begun := time.Now()
	old.Cmd.Process.Kill()
	if err := s.anew(begun); err != nil {
		return 0, err
	}
	if !old.Await(shutdownTimeout+2*time.Second, func() bool { return len(old.Processes()) == 0 }) {
		return 0, fmt.Errorf("workers %v go on without a master", old.Processes())
	}
	if n := old.Count("the master is gone, stopping"); n < workers && !stalled {
		return 0, fmt.Errorf("%d of %d workers said that the master is gone", n, workers)
	}
	return 0, nil
}

// stopAll sends TERM to every process, in some order, as service managers and pkill(1) do, and starts the pack anew.
func stopAll(s *subject, random *rand.Rand) (int, error) {
	workers := s.Workers()
	tell := func(pids ...int) {
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	pause := time.Duration(random.Int64N(int64(50 * time.Millisecond)))
	s.down = true
	begun := time.Now()
	switch random.IntN(3) {
	case 0:
		tell(append(workers, s.PID())...)
	case 1:
		tell(s.PID())
		time.Sleep(pause)
		tell(s.Workers()...)
	case 2:
		tell(workers...)
		time.Sleep(pause)
		tell(append(s.Workers(), s.PID())...)
	}
	if err := s.hasStopped(); err != nil {
		return 0, err
	}
	// One that was about to call Run has no handler for the signal yet, and ends by it.
	unexpected := func(l program.Line) bool {
		return l.Record.Msg() == "worker failed" && !strings.HasPrefix(fmt.Sprint(l.Record["error"]), "signal: terminated")
	}
	if slices.ContainsFunc(s.Lines(s.begun), unexpected) || !s.logged("stopped") {
		return 0, errors.New("a worker has failed, or the pack did not stop as it should")
	}
	return 0, s.anew(begun)
}

// hasStopped waits until the pack has stopped gracefully.
func (s *subject) hasStopped() error {
	ok := s.Await(shutdownTimeout+5*time.Second, func() bool { return s.Ended() && s.Silent() })
	if !ok || s.Cmd.ProcessState.ExitCode() != 0 || len(s.Processes()) > 0 {
		return fmt.Errorf("the pack did not stop: %v, workers %v", s.Err(), s.Workers())
	}
	return nil
}
