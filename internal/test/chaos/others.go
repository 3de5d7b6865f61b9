//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test/program"
)

// tellWorker sends TERM to a worker, which is replaced. That is no failure.
func tellWorker(s *subject, random *rand.Rand) (int, error) {
	pid, err := s.some(random)
	if err != nil {
		return 0, err
	}
	syscall.Kill(pid, syscall.SIGTERM)
	if err := s.says("replacing worker", 5*time.Second); err != nil {
		return 0, err
	}
	if !s.Await(shutdownTimeout+5*time.Second, func() bool { return !slices.Contains(s.Workers(), pid) }) {
		return 0, fmt.Errorf("worker %d is still there", pid)
	}
	if s.logged("worker failed") {
		return 0, errors.New("the log says that a worker failed, which was told to stop")
	}
	return 0, nil
}

// allLate is what the log says while no worker can be told from one that is starved: then nothing is done.
const allLate = "all workers are late: the machine is starved, or was suspended"

// stopServing stops a worker until the log says that others serve its queue.
func (s *subject) stopServing(pid int) error {
	from := s.lines()
	syscall.Kill(pid, syscall.SIGSTOP)
	missed := about(pid, "worker takes nothing from its queue, others serve it", "worker is late, others serve its queue")
	found := func(r program.Record) bool { return missed(r) || r.Msg() == allLate }
	if s.await(from, hangTimeout+5*time.Second, found) == nil {
		return fmt.Errorf("the log does not say that others serve the queue of worker %d", pid)
	}
	return nil
}

// stopCover stops a worker, and then the one that serves its queue meanwhile. A third goes on for both.
func stopCover(s *subject, random *rand.Rand) (int, error) {
	for n := 1; s.workers < 3; n++ {
		s.workers++
		s.signal(syscall.SIGTTIN)
		changed := func() bool { return s.count("number of workers changed") == n && s.Complete(s.workers) }
		if !s.Await(20*time.Second, changed) {
			return 0, errors.New("the number of workers was not changed")
		}
	}
	first, err := s.some(random)
	if err != nil {
		return 0, err
	}
	defer syscall.Kill(first, syscall.SIGCONT)
	if err := s.stopServing(first); err != nil {
		return 1, err
	}
	from := s.lines()
	s.signal(syscall.SIGUSR1)
	state := s.await(from, 5*time.Second, about(first, "state of a worker"))
	cover := s.await(from, 5*time.Second, func(r program.Record) bool {
		return r.Msg() == "state of a worker" && r["generation"] == state["generation"] && r["pid"] != 0.0 &&
			state["coveredBy"] != nil && r["worker"] == state["coveredBy"]
	})
	if cover == nil {
		if s.logged(allLate) {
			return 1, nil
		}
		return 1, fmt.Errorf("the log does not say who covers for worker %d, but %v", first, state)
	}
	second := int(cover["pid"].(float64))
	defer syscall.Kill(second, syscall.SIGCONT)
	if err := s.stopServing(second); err != nil {
		return 2, err
	}
	if err := s.answers(20); err != nil && !s.logged(allLate) {
		return 2, fmt.Errorf("while %d and %d, which covers for it, are stopped: %w", first, second, err)
	}
	gone := func() bool { return !slices.Contains(s.Workers(), first) && !slices.Contains(s.Workers(), second) }
	if random.IntN(2) == 0 && !s.Await(hangTimeout+shutdownTimeout+10*time.Second, gone) {
		return 2, fmt.Errorf("of workers %d and %d one is still there", first, second)
	}
	return 2, nil
}

// stallLog stops reading the log while a worker is killed, or crashes, and the pack is reloaded or upgraded. What waits
// arrives later, or the log says that lines were lost.
func stallLog(s *subject, random *rand.Rand) (int, error) {
	sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGABRT}[random.IntN(2)]
	change := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2}[random.IntN(2)]
	signals := 50 + random.IntN(500) // to fill the pipe, and then what waits
	err := func() error {
		defer s.Flood(syscall.SIGUSR1, signals)()
		pid, err := s.some(random)
		if err != nil {
			return err
		}
		s.dead[pid] = time.Now() // the log may not say so
		syscall.Kill(pid, sig)
		replaced := func() bool { return !slices.Contains(s.Workers(), pid) && s.Complete(s.workers) }
		if !s.Await(hangTimeout+longestDelay, replaced) {
			return fmt.Errorf("worker %d is not replaced while nobody reads the log: workers %v", pid, s.Workers())
		}
		before := s.generation()
		s.signal(change)
		changed := func() bool { return s.generation() > before && s.Complete(s.workers) }
		if !s.Await(20*time.Second, changed) {
			return fmt.Errorf("%v does nothing while nobody reads the log: workers %v", change, s.Workers())
		}
		return s.answers(20)
	}()
	if err != nil {
		return 1, err
	}
	done := map[syscall.Signal]string{syscall.SIGHUP: "reloaded", syscall.SIGUSR2: "upgraded"}[change]
	told := func() bool {
		return s.logged("worker failed") && s.logged(done) ||
			s.logged("lines of the log were lost: what reads it was too slow")
	}
	if !s.Await(10*time.Second, told) {
		return 1, errors.New("the log says neither what happened while nobody read it, nor that lines were lost")
	}
	return 1, nil
}

// generation returns the latest generation.
func (s *subject) generation() (latest int) {
	for _, is := range s.Identities() {
		latest = max(latest, is.Generation)
	}
	return latest
}

// starve has the master, and the workers, have few or no descriptors left over a reload. What fails is done the next
// time.
func starve(s *subject, random *rand.Rand) (int, error) {
	most := s.uses().descriptors + random.IntN(30)
	pids := []int{s.PID()}
	limits := []int{most}
	if random.IntN(2) == 0 {
		for _, pid := range s.Workers() {
			pids, limits = append(pids, pid), append(limits, 10+random.IntN(20))
		}
	}
	var errs []error
	var undo []func() error
	for i, pid := range pids {
		var before unix.Rlimit
		err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before)
		if err == nil {
			err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limits[i]), Max: before.Max}, nil)
			undo = append(undo, func() error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil) })
		}
		errs = append(errs, err)
	}
	s.signal(syscall.SIGHUP)
	ended := func() bool { return s.logged("reloaded") || s.logged("reload failed, the old workers go on") }
	if !s.Await(25*time.Second, ended) {
		errs = append(errs, errors.New("the log does not say what became of a reload without descriptors"))
	}
	for _, u := range undo {
		if err := u(); !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	n := s.count("reloaded")
	s.signal(syscall.SIGHUP)
	if !s.Await(20*time.Second, func() bool { return s.count("reloaded") > n }) {
		return 0, errors.New("the log does not say that the pack was reloaded when it had descriptors again")
	}
	return 0, nil
}
