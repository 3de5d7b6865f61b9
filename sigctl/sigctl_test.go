//go:build unix

package sigctl

import (
	"context"
	"errors"
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

	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

// asHelper makes the test binary a program that waits for a signal by Context and then ignores everything.
const asHelper = "SIGCTL_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(asHelper) != "" {
		ctx, stop := Context(context.Background(), syscall.SIGTERM)
		defer stop()
		os.Stdout.WriteString("ready\n")
		<-ctx.Done()
		os.Stdout.WriteString(context.Cause(ctx).Error() + "\n")
		time.Sleep(time.Hour)
	}
	leaktest.Main(m)
}

func raise(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		t.Fatal(err)
	}
}

func TestContext(t *testing.T) {
	ctx, stop := Context(t.Context(), syscall.SIGUSR1, syscall.SIGUSR2)
	defer stop()
	if ctx.Err() != nil {
		t.Fatal(ctx.Err())
	}
	raise(t, syscall.SIGUSR2)
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

func TestSecondSignalKills(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asHelper+"=1", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ready\n", "signal: terminated\n"} {
		buf := make([]byte, 100)
		n, err := out.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("helper said %q, %v; want %q", buf[:n], err, want)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("helper ended with %v, want death by SIGTERM", err)
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
	registered := make(chan os.Signal, 64)
	if err := m.register(registered); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		_, err := m.loop(ctx, registered)
		result <- err
	}()
	for _, tt := range []struct {
		s    syscall.Signal
		want string
	}{{syscall.SIGUSR1, "one"}, {syscall.SIGUSR2, "two"}, {syscall.SIGWINCH, "two"}, {syscall.SIGUSR1, "one"}} {
		raise(t, tt.s)
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
		send(syscall.SIGINT, syscall.SIGTERM)
		if did != 1 || again != 2 {
			t.Errorf("after two more: Do %d, Again %d", did, again)
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
		raise(t, syscall.SIGUSR2)
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
	raise(t, syscall.SIGUSR1)
	<-other
	close(end)
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
	if got := m.Pending(); len(got) == 0 || got[0] != syscall.SIGUSR1 {
		t.Errorf("pending: %v; want %v first", got, syscall.SIGUSR1)
	}
}
