//go:build unix

package sigctl

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

// asHelper makes the test binary a program that waits for a signal by Context and then does nothing any more.
const asHelper = "SIGCTL_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(asHelper) != "" {
		ctx, stop := Context(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		defer stop()
		os.Stdout.WriteString("ready\n")
		<-ctx.Done()
		os.Stdout.WriteString(context.Cause(ctx).Error() + "\n")
		time.Sleep(time.Hour)
	}
	test.DefaultSignals()
	leaktest.Main(m)
}

// helper is such a program.
type helper struct {
	*exec.Cmd
	t   *testing.T
	out io.Reader
}

// startHelper starts one, which is the last argument of a command, if there is one.
func startHelper(t *testing.T, by ...string) *helper {
	t.Helper()
	command := append(by, os.Args[0])
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), asHelper+"=1", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	h := &helper{cmd, t, out}
	h.says("ready")
	return h
}

func (h *helper) says(want string) {
	h.t.Helper()
	buf := make([]byte, 100)
	n, err := h.out.Read(buf)
	if err != nil || string(buf[:n]) != want+"\n" {
		h.t.Fatalf("helper said %q, %v; want %q", buf[:n], err, want)
	}
}

func (h *helper) signal(s os.Signal) {
	h.t.Helper()
	if err := h.Process.Signal(s); err != nil {
		h.t.Fatal(err)
	}
}

// diesBy waits for its end.
func (h *helper) diesBy(want syscall.Signal) {
	h.t.Helper()
	err := h.Wait()
	if status, ok := h.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != want {
		h.t.Errorf("helper ended with %v, want death by %v", err, want)
	}
}

func TestContext(t *testing.T) {
	ctx, stop := Context(t.Context(), syscall.SIGUSR1, syscall.SIGUSR2)
	defer stop()
	if ctx.Err() != nil {
		t.Fatal(ctx.Err())
	}
	raise(syscall.SIGUSR2)
	<-ctx.Done()
	var sig *Error
	if !errors.As(context.Cause(ctx), &sig) || sig.Signal != syscall.SIGUSR2 {
		t.Errorf("cause = %v, want SIGUSR2", context.Cause(ctx))
	}
	stop() // once more is harmless
}

func TestContextStopAndParent(t *testing.T) {
	ctx, stop := Context(t.Context(), syscall.SIGUSR1)
	stop()
	if cause := context.Cause(ctx); cause != context.Canceled {
		t.Errorf("after stop: cause %v", cause)
	}
	parent, cancel := context.WithCancelCause(t.Context())
	ctx, stop = Context(parent, syscall.SIGUSR1)
	defer stop()
	oops := errors.New("oops")
	cancel(oops)
	<-ctx.Done()
	if cause := context.Cause(ctx); cause != oops {
		t.Errorf("after the parent's end: cause %v", cause)
	}
}

// TestSecondSignalKills has a second signal end a program: another one at once, the same one not before a second.
func TestSecondSignalKills(t *testing.T) {
	for _, tt := range []struct {
		name     string
		second   syscall.Signal
		after    time.Duration
		survives bool
	}{
		{"another", syscall.SIGINT, 0, false},
		{"the same, later", syscall.SIGTERM, sameWish + 200*time.Millisecond, false},
		{"the same at once", syscall.SIGTERM, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := startHelper(t)
			h.signal(syscall.SIGTERM)
			h.says("signal: terminated")
			time.Sleep(tt.after)
			h.signal(tt.second)
			if tt.survives {
				time.Sleep(100 * time.Millisecond) // in which it must not end
				h.signal(syscall.SIGINT)
				h.diesBy(syscall.SIGINT)
			} else {
				h.diesBy(tt.second)
			}
		})
	}
}

// TestSecondSignalInTheSameMoment has two signals before the program can act on one.
func TestSecondSignalInTheSameMoment(t *testing.T) {
	for range 20 {
		h := startHelper(t)
		h.signal(syscall.SIGSTOP)
		h.signal(syscall.SIGTERM)
		h.signal(syscall.SIGINT)
		h.signal(syscall.SIGCONT)
		h.Wait()
		if s := h.ProcessState.Sys().(syscall.WaitStatus).Signal(); s != syscall.SIGTERM && s != syscall.SIGINT {
			t.Fatalf("ended by %v", s)
		}
	}
}

// TestIgnoredAtStart starts a program with signals ignored, HUP as by nohup, and INT as by a shell without job control,
// in the background: it takes INT all the same, as programs in Go do that ask for it.
func TestIgnoredAtStart(t *testing.T) {
	h := startHelper(t, "sh", "-c", "trap '' HUP INT && exec \"$0\"")
	h.signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond) // in which nothing must come of it
	h.signal(syscall.SIGINT)
	h.says("signal: interrupt")
}

// TestManySignals loses none between Register and Run, however many of another come.
func TestManySignals(t *testing.T) {
	got := make(chan os.Signal, 10)
	do := func(_ context.Context, s os.Signal) { got <- s }
	m := Mux{Actions: []Action{
		{Name: "reload", Signals: []os.Signal{syscall.SIGHUP}, Do: do},
		{Name: "stop", Signals: []os.Signal{syscall.SIGUSR1}, Do: do},
	}}
	if err := m.Register(); err != nil {
		t.Fatal(err)
	}
	late := make(chan os.Signal, 1)
	signal.Notify(late, syscall.SIGHUP) // one may come when the mux does not take it any more
	defer signal.Stop(late)
	for range 200 {
		raise(syscall.SIGHUP)
	}
	raise(syscall.SIGUSR1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	for s := range got {
		if s == syscall.SIGUSR1 {
			break
		}
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
}

func TestMuxRealSignals(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan string, 1)
	m := Mux{Actions: []Action{
		{Name: "one", Signals: []os.Signal{syscall.SIGUSR1}, Do: func(context.Context, os.Signal) { got <- "one" }},
		{Name: "two", Signals: []os.Signal{syscall.SIGUSR2, syscall.SIGWINCH}, Do: func(context.Context, os.Signal) { got <- "two" }},
	}}
	if err := m.Register(); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() { result <- m.Run(ctx) }()
	for _, tt := range []struct {
		s    syscall.Signal
		want string
	}{{syscall.SIGUSR1, "one"}, {syscall.SIGUSR2, "two"}, {syscall.SIGWINCH, "two"}, {syscall.SIGUSR1, "one"}} {
		raise(tt.s)
		if name := <-got; name != tt.want {
			t.Errorf("%v ran %s", tt.s, name)
		}
	}
	cancel()
	if err := <-result; err != context.Canceled {
		t.Error(err)
	}
}

// muxTest runs a mux on signals that the test sends itself. In synctest's bubble, Wait tells when the mux has
// dealt with all of them.
func muxTest(t *testing.T, m *Mux, test func(send func(...syscall.Signal))) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		arrived := make(chan os.Signal, 64)
		result := make(chan error, 1)
		go func() {
			_, err := m.loop(ctx, arrived)
			result <- err
		}()
		test(func(signals ...syscall.Signal) {
			for _, s := range signals {
				arrived <- s
			}
			synctest.Wait()
		})
		cancel()
		if err := <-result; err != context.Canceled {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestMuxCoalescesAndNeverOverlaps(t *testing.T) {
	var runs, concurrent atomic.Int32
	var proceed chan struct{}
	do := func(context.Context, os.Signal) {
		if concurrent.Add(1) != 1 {
			t.Error("two actions ran at once")
		}
		runs.Add(1)
		<-proceed
		concurrent.Add(-1)
	}
	m := &Mux{Actions: []Action{{Name: "reload", Signals: []os.Signal{syscall.SIGHUP}, Do: do}}}
	muxTest(t, m, func(send func(...syscall.Signal)) {
		proceed = make(chan struct{})
		send(syscall.SIGHUP)
		send(slices.Repeat([]syscall.Signal{syscall.SIGHUP}, 50)...) // all while the first runs: one more
		if n := runs.Load(); n != 1 {
			t.Errorf("%d runs before the first ended", n)
		}
		close(proceed)
		send()
		if n := runs.Load(); n != 2 {
			t.Errorf("%d runs, want 2", n)
		}
	})
}

func TestMuxPrecedenceInterrupts(t *testing.T) {
	var order []string
	hold := func(name string) func(context.Context, os.Signal) {
		return func(ctx context.Context, _ os.Signal) {
			<-ctx.Done()
			order = append(order, name)
		}
	}
	m := &Mux{Actions: []Action{
		{Name: "stop", Signals: []os.Signal{syscall.SIGTERM}, Do: func(context.Context, os.Signal) { order = append(order, "stop") }},
		{Name: "upgrade", Signals: []os.Signal{syscall.SIGUSR2}, Do: hold("upgrade")},
		{Name: "reload", Signals: []os.Signal{syscall.SIGHUP}, Do: hold("reload")},
	}}
	muxTest(t, m, func(send func(...syscall.Signal)) {
		send(syscall.SIGUSR2)
		send(syscall.SIGHUP) // lower: waits
		if len(order) != 0 {
			t.Errorf("a lower action interrupted: %v", order)
		}
		send(syscall.SIGTERM) // higher: interrupts, then runs before the waiting reload
		if want := []string{"upgrade", "stop"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
	})
	if want := []string{"upgrade", "stop", "reload"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v: the end of Run ends the running action", order, want)
	}
}

func TestMuxAgain(t *testing.T) {
	var did, again int
	var asked os.Signal
	m := &Mux{Actions: []Action{{
		Name: "stop", Signals: []os.Signal{syscall.SIGTERM, syscall.SIGINT},
		Do:    func(ctx context.Context, s os.Signal) { did++; asked = s; <-ctx.Done() },
		Again: func() { again++ },
	}}}
	muxTest(t, m, func(send func(...syscall.Signal)) {
		send(syscall.SIGTERM)
		if asked != syscall.SIGTERM {
			t.Errorf("Do was told of %v", asked)
		}
		if did != 1 || again != 0 {
			t.Errorf("after the first signal: Do %d, Again %d", did, again)
		}
		send(syscall.SIGTERM)
		if did != 1 || again != 0 {
			t.Errorf("after the same at once: Do %d, Again %d", did, again)
		}
		send(syscall.SIGINT, syscall.SIGTERM, syscall.SIGINT)
		if did != 1 || again != 1 {
			t.Errorf("after another, twice at once: Do %d, Again %d", did, again)
		}
		time.Sleep(sameWish)
		send(syscall.SIGTERM, syscall.SIGTERM)
		if did != 1 || again != 2 {
			t.Errorf("after the first again: Do %d, Again %d", did, again)
		}
	})
}

func TestMuxErrors(t *testing.T) {
	do := func(context.Context, os.Signal) {}
	for _, tt := range []struct {
		m    Mux
		want string
	}{
		{Mux{}, "no actions"},
		{Mux{Actions: []Action{{Name: "a", Do: do}}}, `"a" has no signals`},
		{Mux{Actions: []Action{{Name: "a", Signals: []os.Signal{syscall.SIGHUP}}}}, "no Do"},
		{Mux{Actions: []Action{
			{Name: "a", Signals: []os.Signal{syscall.SIGHUP}, Do: do},
			{Name: "b", Signals: []os.Signal{syscall.SIGHUP}, Do: do},
		}}, `action "b": signal "hangup" has an action already`},
		{Mux{Actions: []Action{{Name: "a", Signals: []os.Signal{syscall.SIGHUP, syscall.SIGKILL}, Do: do}}},
			`action "a": signal "killed" cannot be caught`},
	} {
		if err := tt.m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v; want an error about %q", err, tt.want)
		}
	}
}

// TestMuxPending has signals arrive that nothing is done about any more.
func TestMuxPending(t *testing.T) {
	begun, end := make(chan bool), make(chan bool)
	ctx, cancel := context.WithCancel(t.Context())
	m := Mux{Actions: []Action{
		{Name: "first", Signals: []os.Signal{syscall.SIGUSR1}, Do: func(context.Context, os.Signal) { t.Error("first was run") }},
		{Name: "second", Signals: []os.Signal{syscall.SIGUSR2}, Do: func(context.Context, os.Signal) { close(begun); <-end }},
	}}
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	probe := make(chan os.Signal, 1)
	signal.Notify(probe, syscall.SIGUSR2) // whatever is first, the mux registers or the signal comes, nobody dies
	defer signal.Stop(probe)
	for running := false; !running; {
		raise(syscall.SIGUSR2)
		<-probe
		select {
		case <-begun:
			running = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	other := make(chan os.Signal, 1)
	signal.Notify(other, syscall.SIGUSR1)
	defer signal.Stop(other)
	cancel()
	raise(syscall.SIGUSR1)
	<-other
	close(end)
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
	if got := m.Pending(); len(got) == 0 || got[0] != syscall.SIGUSR1 {
		t.Errorf("pending: %v; want %v first", got, syscall.SIGUSR1)
	}
}
