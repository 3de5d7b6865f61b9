//go:build linux

package pack_test

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/pack"
)

func init() { programs["stuck"] = stuckProgram }

// stuckProgram has some of what it is called for never return.
func stuckProgram() error {
	c, address := configFlags()
	block := flag.String("block", "", "")
	probe := flag.Int("probe", 0, "")
	flag.Parse()
	blocks := func(what string) bool { return strings.Contains(*block, what) }
	if blocks("OnStart") {
		c.OnStart = func(context.Context) error {
			c.Logger.Info("OnStart begins")
			select {}
		}
	}
	if blocks("OnReopen") {
		c.OnReopen = func() { select {} }
	}
	switch {
	case blocks("steering"):
		c.Steering = &stuckSteering{block: true}
	case blocks("failing"):
		c.Steering = &stuckSteering{}
	}
	if blocks("resolver") {
		ask := func(context.Context, string, string) (net.Conn, error) {
			c.Logger.Info("the resolver is asked")
			select {}
		}
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: ask}
	}
	if *probe > 0 {
		c.Probe = func(context.Context) error { return errors.New(strings.Repeat("no! ", *probe/4)) }
	}
	err := serve(c, *address, &http.Server{Handler: handler()})
	if err != nil && *block != "" && pack.IsMaster() {
		os.Exit(1) // not by a message that nobody may be reading
	}
	return err
}

// stuckSteering is one that fails, or does not return, once workers are up.
type stuckSteering struct {
	block bool
	ups   atomic.Int32
}

func (s *stuckSteering) now() error {
	if s.ups.Add(1) <= 3 {
		return nil
	}
	if s.block {
		select {}
	}
	return errors.New("the steering has come off")
}

func (s *stuckSteering) Start([]affinity.Set) error                    { return nil }
func (s *stuckSteering) Mode() (string, error)                         { return "imagined", nil }
func (s *stuckSteering) Attach(string, []syscall.Conn, *os.File) error { return nil }
func (s *stuckSteering) Export(string) (*os.File, error)               { return nil, s.now() }
func (s *stuckSteering) Join() (int, error)                            { return 0, s.now() }
func (s *stuckSteering) Leave(int)                                     { s.now() }
func (s *stuckSteering) Board() (*os.File, error)                      { return nil, errors.New("there is none") }
func (s *stuckSteering) Up(int, int) error                             { return s.now() }
func (s *stuckSteering) Drain(int) error                               { return s.now() }
func (s *stuckSteering) Down(int) error                                { return s.now() }
func (s *stuckSteering) Watch(func(worker int, hung bool))             {}
func (s *stuckSteering) Close() error                                  { return s.now() }

var _ pack.Steering = (*stuckSteering)(nil)

// TestEverythingIsStuck has nobody read the log, hooks and the steering never return, and a worker that neither reads
// nor ends. A worker that crashes is replaced all the same, and the pack stops when it is told to: in time, or at once.
func TestEverythingIsStuck(t *testing.T) {
	t.Parallel()
	for _, steering := range []string{"steering", "failing"} {
		for _, times := range []int{1, 2} {
			name := steering + ", " + []string{"", "one signal", "two"}[times]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				path := t.TempDir() + "/socket"
				shutdown := []time.Duration{0, 3 * time.Second, time.Hour}[times]
				p := start(t, "stuck", func(c *exec.Cmd) { c.Stderr = fullPipe(t) }, "-workers=3",
					"-address=unix "+path, "-block=OnReopen, "+steering, "-shutdown="+shutdown.String(),
					hangTimeout, "-hang=1")
				p.answer(3, loadOn("unix", path, 8, 10))
				p.Signal(syscall.SIGUSR1)
				freeze(t, p.pidOf(0))
				for range 3 {
					victim := p.pidOf(1)
					syscall.Kill(victim, syscall.SIGKILL)
					p.Until("a worker in the place of the one that has crashed", inTime, func() bool {
						all := p.Workers()
						return len(all) == 3 && !slices.Contains(all, victim)
					})
					p.Signal(syscall.SIGUSR1)
					time.Sleep(100 * time.Millisecond)
				}
				if r := loadOn("unix", path, 4, 5).Run(t.Context()); r.Failed() > 0 {
					t.Errorf("%v", r)
				}
				begun, limit := time.Now(), shutdown+10*time.Second
				for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}[:times] {
					p.Signal(s)
					time.Sleep(100 * time.Millisecond)
				}
				if times == 2 {
					limit = 10 * time.Second // it waits for a second each for the steering and the log
				}
				p.Wait(limit)
				t.Logf("it stopped in %v", time.Since(begun))
			})
		}
	}
}

// fullPipe returns a pipe that nobody reads, and into which nothing goes.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		r.Close()
	})
	w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil {
		_, err = w.Write(make([]byte, 4096))
	}
	for err = nil; err == nil; { // what fits besides whole pages
		w.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		_, err = w.Write([]byte{'\n'})
	}
	// To a child it must be blocking, as a logger's is; the mode is that of the pipe, not of the descriptor.
	rc, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestStopWhileResolving stops a pack that waits for a name to be resolved.
func TestStopWhileResolving(t *testing.T) {
	t.Parallel()
	p := start(t, "stuck", nil, "-block=resolver", "-address=tcp pack.invalid:0")
	p.Logged(1, "the resolver is asked")
	begun := time.Now()
	p.Signal(syscall.SIGTERM)
	p.Wait(inTime)
	p.Logged(1, "stopping")
	t.Logf("it stopped in %v, with %v", time.Since(begun), p.Err())
}

// TestLongProbeError has the probe of every worker fail with a text that is longer than any message may be.
func TestLongProbeError(t *testing.T) {
	t.Parallel()
	p := start(t, "stuck", nil, "-workers=2", "-probe=70000", hangTimeout, "-hang=1")
	p.Addresses()
	before := p.Workers()
	// Where all are unwell the fault is nobody's, so that nothing is done about it; the state tells of it.
	p.Until("the state of a worker with what its probe says", program.Patience, func() bool {
		n := p.Count("state of a worker")
		p.Signal(syscall.SIGUSR1)
		text, _ := p.Logged(n+2, "state of a worker")["probe"].(string)
		return strings.HasPrefix(text, "no! no! ") && len(text) < 5000
	})
	time.Sleep(2 * time.Second) // in which they would be killed
	if after := p.Workers(); !slices.Equal(before, after) || p.Count("worker failed") > 0 {
		t.Errorf("the workers were %v, and are %v", before, after)
	}
	p.Stop()
}

// TestStopDuringOnStart stops a pack whose OnStart does not return: the first signal is heard, and the second one ends
// it.
func TestStopDuringOnStart(t *testing.T) {
	t.Parallel()
	p := start(t, "stuck", nil, "-block=OnStart")
	p.Logged(1, "OnStart begins")
	p.Signal(syscall.SIGTERM)
	p.Logged(1, "stopping")
	if p.Await(300*time.Millisecond, p.Ended) {
		t.Error("it ended without waiting for OnStart")
	}
	p.Signal(syscall.SIGINT)
	if status := p.Wait(inTime); status != 1 {
		t.Errorf("exit status %d", status)
	}
}
