//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// act does something to a pack, waits for what the log must say of it, and returns how many workers may have been
// killed by it.
type act func(*subject, *rand.Rand) (killed int, err error)

var acts = map[string]act{
	"kill":        kill,
	"crash":       crash,
	"stop":        stop,
	"hang":        hangWorker,
	"leak":        leakMemory,
	"descriptors": exhaustDescriptors,
	"queue":       fillQueue,
	"no-start":    failStarts,
	"reload":      signalAct(syscall.SIGHUP, "reloaded"),
	"upgrade":     signalAct(syscall.SIGUSR2, "upgraded"),
	"more":        scale(+1),
	"fewer":       scale(-1),
	"state":       signalAct(syscall.SIGUSR1, "state of the pack"),
	"storm":       storm,
	"hostile":     beHostile,
	"starve":      starve,
	"stall-log":   stallLog,
	"half":        sendHalf,
	"tell":        tellWorker,
	"stop-cover":  stopCover,
	"stop-all":    stopAll,
	"kill-master": killMaster,
}

func init() {
	if os.Geteuid() != 0 {
		acts["no-fork"] = failForks
	}
}

// says waits until the log has a message.
func (s *subject) says(msg string, limit time.Duration) error {
	if !s.Await(limit, func() bool { return s.logged(msg) }) {
		return fmt.Errorf("the log does not say %q", msg)
	}
	return nil
}

// ask sends a request of which nothing is expected.
func (s *subject) ask(path string, limit time.Duration) {
	l := strictclient.Load{Network: "tcp", Address: s.address, Clients: 1, PerClient: 1, Path: path, Timeout: limit}
	l.Run(context.Background())
}

// kill kills a worker.
func (s *subject) kill(pid int) {
	s.dead[pid] = time.Now() // as soon as somebody notices: the log tells later
	syscall.Kill(pid, syscall.SIGKILL)
}

func kill(s *subject, random *rand.Rand) (int, error) {
	pid, err := s.some(random)
	if err != nil {
		return 0, err
	}
	s.kill(pid)
	return 1, s.says("worker failed", 5*time.Second)
}

func crash(s *subject, _ *rand.Rand) (int, error) {
	s.ask("/crash", time.Second)
	return 1, s.says("worker failed", 5*time.Second)
}

// stop stops a worker, as a debugger or an operator does, for less time than makes it hang, or for ever.
func stop(s *subject, random *rand.Rand) (int, error) {
	pid, err := s.some(random)
	if err != nil {
		return 0, err
	}
	syscall.Kill(pid, syscall.SIGSTOP)
	if random.IntN(2) == 0 {
		time.Sleep(time.Duration(random.Int64N(int64(hangTimeout * 3 / 4))))
		syscall.Kill(pid, syscall.SIGCONT)
		return 0, nil
	}
	return 1, s.hangsWithin(pid)
}

// hangsWithin waits until a worker that hangs has been found and replaced; one that was being drained is killed for
// that.
func (s *subject) hangsWithin(pid int) error {
	ended := func() bool {
		return s.logged("worker hangs, killing it") && s.logged("worker failed") || s.logged("killing worker")
	}
	if !s.Await(hangTimeout+shutdownTimeout+5*time.Second, ended) {
		return errors.New("the log does not say that a worker hangs, and is killed")
	}
	if !s.Await(5*time.Second, func() bool { return !slices.Contains(s.Workers(), pid) }) {
		return fmt.Errorf("worker %d is still there", pid)
	}
	return nil
}

func hangWorker(s *subject, _ *rand.Rand) (int, error) {
	s.ask("/hang", 100*time.Millisecond)
	return 1, s.hangsWithin(0)
}

// leakMemory has workers leak until one is replaced, or killed if it leaks too fast.
func leakMemory(s *subject, _ *rand.Rand) (int, error) {
	for range 500 {
		s.ask("/leak", 5*time.Second)
		if s.logged("replacing worker") {
			return 0, nil
		}
		if s.logged("killing worker") {
			return 1, nil
		}
	}
	return 1, errors.New("no worker was replaced although they leak")
}

func exhaustDescriptors(s *subject, _ *rand.Rand) (int, error) {
	s.ask("/descriptors", 10*time.Second)
	return 0, nil
}

// fillQueue opens many connections on which nothing is asked.
func fillQueue(s *subject, random *rand.Rand) (int, error) {
	var all []net.Conn
	for range random.IntN(400) {
		if c, err := net.DialTimeout("tcp", s.address, time.Second); err == nil {
			all = append(all, c)
		}
	}
	for _, c := range all {
		c.Close()
	}
	return 0, nil
}

// failStarts has the master have no descriptor for a new worker, when it needs one.
func failStarts(s *subject, random *rand.Rand) (int, error) {
	return s.withLimit(random, unix.RLIMIT_NOFILE, 4)
}

// failForks has the master's user have as many processes as it may. Root may have more.
func failForks(s *subject, random *rand.Rand) (int, error) {
	return s.withLimit(random, unix.RLIMIT_NPROC, 1)
}

// withLimit kills a worker while the master has a limit with which it can start no other, until that has failed.
func (s *subject) withLimit(random *rand.Rand, resource int, limit uint64) (int, error) {
	pid, err := s.some(random)
	if err != nil {
		return 0, err
	}
	var before unix.Rlimit
	if err := unix.Prlimit(s.PID(), resource, nil, &before); err != nil {
		return 0, err
	}
	few := unix.Rlimit{Cur: limit, Max: before.Max}
	if err := unix.Prlimit(s.PID(), resource, &few, nil); err != nil {
		return 0, err
	}
	s.kill(pid)
	err = errors.New("the log does not say twice that a worker failed")
	if s.Await(longestDelay, func() bool { return s.count("worker failed") > 1 }) {
		err = nil
	}
	return 1, errors.Join(err, unix.Prlimit(s.PID(), resource, &before, nil))
}

// signalAct sends a signal to the master, and waits for what it logs.
func signalAct(sig syscall.Signal, msg string) act {
	return func(s *subject, _ *rand.Rand) (int, error) {
		s.signal(sig)
		return 0, s.says(msg, 20*time.Second)
	}
}

// scale changes the number of workers, between 1 and 4.
func scale(by int) act {
	return func(s *subject, _ *rand.Rand) (int, error) {
		if by > 0 && s.workers == 4 || by < 0 && s.workers == 1 {
			by := -by
			return scaleBy(s, by)
		}
		return scaleBy(s, by)
	}
}

func scaleBy(s *subject, by int) (int, error) {
	s.workers += by
	if by > 0 {
		s.signal(syscall.SIGTTIN)
	} else {
		s.signal(syscall.SIGTTOU)
	}
	return 0, s.says("number of workers changed", 20*time.Second)
}

// storm sends signals for changes together: one is heeded at once, the others afterwards; and workers are killed
// meanwhile.
func storm(s *subject, random *rand.Rand) (int, error) {
	killed := random.IntN(2)
	s.signal(syscall.SIGHUP)
	s.signal(syscall.SIGUSR2)
	s.signal(syscall.SIGHUP)
	if killed > 0 {
		if pid, err := s.some(random); err == nil {
			s.kill(pid)
		}
	}
	var since time.Time // when the last change ended
	calm := func() bool {
		ended := s.count("reloaded") + s.count("reload failed, the old workers go on") +
			s.count("upgraded") + s.count("upgrade failed, the old workers go on")
		if ended == 0 || ended < s.count("reloading")+s.count("upgrading") {
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) > time.Second
	}
	if !s.Await(30*time.Second, calm) {
		return killed, errors.New("the log does not say what became of reloads and an upgrade")
	}
	return killed, nil
}
