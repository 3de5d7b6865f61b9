package procgroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeGroup is a group of processes that the test plays, in a bubble whose time passes at once.
type fakeGroup struct {
	*Group
	t *testing.T

	mu       sync.Mutex     // the passing of time does not order memory accesses
	procs    []*fakeProcess // in the order of their start
	fails    map[int]error  // what starting a process of a member gives
	log      []string       // the events
	result   chan error
	cancel   context.CancelFunc
	stubborn atomic.Bool // processes ignore that they are asked to end
}

type fakeProcess struct {
	p        *Process
	g        *fakeGroup
	signals  []os.Signal
	gone     chan struct{}
	released chan struct{}
	reaping  bool // its end is being dealt with
}

func (f *fakeProcess) signal(s os.Signal) error {
	f.signals = append(f.signals, s)
	if s == terminate && !f.g.stubborn.Load() {
		go f.exit(nil)
	}
	return nil
}

func (f *fakeProcess) kill() { go f.exit(errors.New("signal: killed")) }
func (f *fakeProcess) serve(p *Process) {
	select {
	case <-f.gone:
	case <-f.released:
	}
}

func (f *fakeProcess) release(_ *Process, done func()) bool {
	if f.reaping {
		return false
	}
	close(f.released)
	go done()
	return true
}

func (f *fakeProcess) control() (*os.File, error) { return nil, nil }

// exit makes the process end.
func (f *fakeProcess) exit(err error) {
	f.g.do(func(o *owner) { o.gone(f.p, err) })
	close(f.gone)
}

// TestDelays has the delay grow to its limit, and stay there, whatever the first one is.
func TestDelays(t *testing.T) {
	for _, first := range []time.Duration{1, 250 * time.Millisecond, 5 * time.Second, time.Hour, 1 << 61} {
		limit := max(first, time.Minute)
		o := &owner{Group: &Group{BackoffMin: first, BackoffMax: limit, BackoffAll: limit}, members: make([]member, 1)}
		for failures := range 200 {
			o.members[0].failures = failures
			d := o.retry(0)
			if failures < 2 && d != 0 || failures >= 2 && (d < first/2 || d > limit) || failures >= 60 && d < limit/2 {
				t.Errorf("%v at first, %v at most: %v after %d failures", first, limit, d, failures)
			}
		}
	}
}

// fakeTest runs test with a group that is being run.
func fakeTest(t *testing.T, g *Group, test func(f *fakeGroup)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := &fakeGroup{Group: g, t: t, fails: map[int]error{}, result: make(chan error, 1), cancel: cancel}
		g.spawn = func(p *Process) (handle, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if err := f.fails[p.ID]; err != nil {
				return nil, err
			}
			p.PID = 1000 + len(f.procs)
			f.procs = append(f.procs, &fakeProcess{p: p, g: f, gone: make(chan struct{}), released: make(chan struct{})})
			return f.procs[len(f.procs)-1], nil
		}
		g.Event = func(e Event) {
			line := fmt.Sprintf("%s %d.%d", e.Kind, e.ID, e.Attempt)
			if e.Err != nil {
				line += ": " + e.Err.Error()
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.log = append(f.log, line)
		}
		go func() { f.result <- g.Run(ctx) }()
		synctest.Wait()
		test(f)
		cancel()
		synctest.Wait()
	})
}

// expect compares the events since the last call, in the order of the members: their own order is not defined.
func (f *fakeGroup) expect(want ...string) {
	f.t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortStableFunc(f.log, func(a, b string) int { return cmp.Compare(memberOf(a), memberOf(b)) })
	slices.SortStableFunc(want, func(a, b string) int { return cmp.Compare(memberOf(a), memberOf(b)) })
	if !slices.Equal(f.log, want) {
		f.t.Errorf("events:\n  %s\nwant:\n  %s", strings.Join(f.log, "\n  "), strings.Join(want, "\n  "))
	}
	f.log = nil
}

// failStart makes every start of a process of a member fail, or succeed if err is nil.
func (f *fakeGroup) failStart(id int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[id] = err
}

// memberOf returns the member of an event's line, such as "ready 1.2".
func memberOf(line string) string {
	_, rest, _ := strings.Cut(line, " ")
	id, _, _ := strings.Cut(rest, ".")
	return id
}

// last returns the youngest process of a member.
func (f *fakeGroup) last(id int) *fakeProcess {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range slices.Backward(f.procs) {
		if p.p.ID == id {
			return p
		}
	}
	f.t.Fatalf("member %d has no process", id)
	return nil
}

func TestFirstMemberProvesTheRest(t *testing.T) {
	fakeTest(t, &Group{Size: 3, ReadyTimeout: time.Minute}, func(f *fakeGroup) {
		f.expect("started 0.1")
		f.last(0).p.Ready()
		f.expect("ready 0.1", "started 1.1", "started 2.1")
		f.last(2).p.Ready()
		f.last(2).p.Ready() // twice is once
		f.expect("ready 2.1")
		f.cancel()
		f.expect("stopped 0.1", "stopped 1.1", "stopped 2.1")
		if err := <-f.result; err != nil {
			t.Error(err)
		}
	})
}

func TestFirstProcessFails(t *testing.T) {
	for name, fail := range map[string]func(f *fakeGroup){
		"exit status 2":                       func(f *fakeGroup) { f.last(0).exit(errors.New("exit status 2")) },
		"port in use":                         func(f *fakeGroup) { f.last(0).p.Fail(errors.New("port in use")); f.last(0).exit(nil) },
		"ended by itself, with exit status 0": func(f *fakeGroup) { f.last(0).exit(nil) },
		"killed: not ready within 1m0s":       func(f *fakeGroup) { time.Sleep(2 * time.Minute) },
	} {
		fakeTest(t, &Group{Size: 3, ReadyTimeout: time.Minute}, func(f *fakeGroup) {
			fail(f)
			err := <-f.result
			if want := "procgroup: the first process failed: " + name; err == nil || err.Error() != want {
				t.Errorf("Run: %v; want %s", err, want)
			}
			if len(f.procs) != 1 {
				t.Errorf("%d processes were started", len(f.procs))
			}
		})
	}
	oops := errors.New("fork: resource temporarily unavailable")
	synctest.Test(t, func(t *testing.T) {
		g := &Group{Size: 2, spawn: func(*Process) (handle, error) { return nil, oops }}
		if err := g.Run(t.Context()); !errors.Is(err, oops) {
			t.Errorf("Run: %v; want %v", err, oops)
		}
	})
}

func TestFailuresBackOffAndAreForgiven(t *testing.T) {
	g := &Group{Size: 2, BackoffMin: time.Second, BackoffMax: 8 * time.Second, Healthy: time.Minute}
	fakeTest(t, g, func(f *fakeGroup) {
		f.expect("started 0.1", "ready 0.1", "started 1.1", "ready 1.1")
		// The delays after the nth failure in a row, the longest possible.
		for i, most := range []time.Duration{0, 1, 2, 4, 8, 8, 8} {
			before := time.Now()
			dying := f.last(1)
			attempt := dying.p.Attempt
			dying.exit(errors.New("boom"))
			for synctest.Wait(); f.last(1).p.Attempt == attempt; synctest.Wait() {
				time.Sleep(time.Millisecond)
			}
			most *= time.Second
			if waited := time.Since(before); waited < most/2 || waited > most+2*time.Millisecond {
				t.Errorf("failure %d: the next start came after %v, want %v to %v", i+1, waited, most/2, most)
			}
			if m := f.Members()[1]; m.Failures != i+1 || m.Attempt != i+2 {
				t.Errorf("failure %d: %+v", i+1, m)
			}
		}
		for _, healthy := range []struct {
			minutes, failures int
		}{{1, 7}, {3, 5}, {10, 1}} { // one is forgiven a minute, and one is new
			time.Sleep(time.Duration(healthy.minutes)*time.Minute + time.Second)
			synctest.Wait()
			f.last(1).exit(errors.New("boom"))
			synctest.Wait()
			if m := f.Members()[1]; m.Failures != healthy.failures || m.Ready != (m.Failures == 1) {
				t.Errorf("after %d healthy minutes: %+v; want %d failures, and a new process at once after the first", healthy.minutes, m, healthy.failures)
			}
			time.Sleep(10 * time.Second)
		}
		if f.last(0).p.Attempt != 1 {
			t.Error("the other member was restarted")
		}
	})
}

// TestAllFail has every process fail at once, for an hour: somebody is tried every second, and not everybody.
func TestAllFail(t *testing.T) {
	const size = 20
	fakeTest(t, &Group{Size: size, BackoffAll: time.Second}, func(f *fakeGroup) {
		for id := range size {
			f.failStart(id, errors.New("no database"))
		}
		for id := range size {
			f.last(id).exit(errors.New("no database"))
		}
		time.Sleep(time.Minute) // in which the delays have grown
		attempts := func() (n int) {
			for _, m := range f.Members() {
				n += m.Attempt
			}
			return n
		}
		before := attempts()
		for last, minute := before, 0; minute < 60; minute++ {
			for second := range 60 {
				time.Sleep(time.Second + time.Millisecond)
				now := attempts()
				if now == last {
					t.Errorf("nobody was tried in second %d of minute %d", second, minute)
				}
				last = now
			}
		}
		// Each on its own, at delays of 15 to 30 s, would be tried 240 times at most.
		if all := attempts() - before; all > 240*size+2*3600 {
			t.Errorf("%d attempts in an hour", all)
		}
		f.failStart(3, nil)
		time.Sleep(31 * time.Second)
		if !f.Members()[3].Ready {
			t.Error("the member that could start was not tried within the longest delay")
		}
		before = attempts()
		time.Sleep(time.Minute)
		if all := attempts() - before; all > 4*size {
			t.Errorf("%d attempts in a minute in which one member stands", all)
		}
	})
}

func TestOneMemberThatCannotStartLeavesTheOthers(t *testing.T) {
	fakeTest(t, &Group{Size: 3}, func(f *fakeGroup) {
		f.failStart(1, errors.New("no such file"))
		f.Restart(1)
		synctest.Wait()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for _, m := range f.Members() {
			if want := m.ID != 1; m.Ready != want {
				t.Errorf("%+v", m)
			}
		}
		f.failStart(1, nil)
		if err := f.Restart(1); err != nil { // does not wait out the delay
			t.Error(err)
		}
		if m := f.Members()[1]; !m.Ready {
			t.Errorf("%+v", m)
		}
	})
}

func TestReadyTimeout(t *testing.T) {
	fakeTest(t, &Group{Size: 2, ReadyTimeout: 10 * time.Second}, func(f *fakeGroup) {
		f.last(0).p.Ready()
		f.expect("started 0.1", "ready 0.1", "started 1.1")
		time.Sleep(9 * time.Second)
		f.expect()
		time.Sleep(2 * time.Second)
		f.expect("killed 1.1: not ready within 10s", "failed 1.1: killed: not ready within 10s", "started 1.2")
		f.last(1).p.Ready()
		f.expect("ready 1.2")
		time.Sleep(time.Hour)
		f.expect()
	})
}

func TestStopTimeoutKills(t *testing.T) {
	fakeTest(t, &Group{Size: 2, StopTimeout: 5 * time.Second}, func(f *fakeGroup) {
		f.expect("started 0.1", "ready 0.1", "started 1.1", "ready 1.1")
		f.stubborn.Store(true)
		f.cancel()
		time.Sleep(4 * time.Second)
		f.expect()
		f.last(1).exit(nil)
		f.expect("stopped 1.1")
		time.Sleep(2 * time.Second)
		f.expect("killed 0.1: not ended within 5s", "stopped 0.1: killed: not ended within 5s")
		if err := <-f.result; err != nil {
			t.Error(err)
		}
	})
}

func TestKillCutsTheStopShort(t *testing.T) {
	fakeTest(t, &Group{Size: 2, StopTimeout: time.Hour}, func(f *fakeGroup) {
		f.stubborn.Store(true)
		f.cancel()
		synctest.Wait()
		before := time.Now()
		f.Kill()
		if err := <-f.result; err != nil || time.Since(before) != 0 {
			t.Errorf("Run: %v, %v after Kill", err, time.Since(before))
		}
	})
}

// TestStartAndStopMember starts and ends members one by one.
func TestStartAndStopMember(t *testing.T) {
	fakeTest(t, &Group{Size: 3, StartNone: true, ReadyTimeout: time.Minute, StopTimeout: time.Minute}, func(f *fakeGroup) {
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Hour)
		f.expect()
		do(f.StartMember(1))
		do(f.StartMember(1)) // it is starting
		f.last(1).p.Ready()
		f.expect("started 1.1", "ready 1.1")
		do(f.StartMember(0))
		f.last(0).p.Ready()
		f.expect("started 0.1", "ready 0.1")
		f.last(0).exit(errors.New("boom")) // a member that was begun is kept running
		f.expect("failed 0.1: boom", "started 0.2")
		do(f.StopMember(0)) // before it is ready
		f.expect("stopped 0.2")
		do(f.StopMember(1))
		do(f.StartMember(1)) // while it ends
		synctest.Wait()
		f.last(1).p.Ready()
		f.expect("stopped 1.1", "started 1.2", "ready 1.2")
		f.failStart(0, errors.New("no memory"))
		do(f.StartMember(0))
		do(f.StopMember(0)) // while it waits for the next attempt
		time.Sleep(time.Hour)
		f.expect("failed 0.3: no memory")
		for _, f := range []func(int) error{f.StartMember, f.StopMember} {
			for _, id := range []int{-1, 3} {
				if err := f(id); err == nil || !strings.Contains(err.Error(), "there are members 0 to 2") {
					t.Errorf("%v", err)
				}
			}
		}
	})
}

// TestAllRetired retires the last member: there is nothing left to run.
func TestAllRetired(t *testing.T) {
	fakeTest(t, &Group{Size: 2, StartNone: true, ReadyTimeout: time.Minute, StopTimeout: time.Minute}, func(f *fakeGroup) {
		f.StartMember(0)
		f.last(0).p.Ready()
		f.StopMember(0)
		synctest.Wait()
		select {
		case err := <-f.result:
			t.Fatalf("Run ended, with %v, although member 1 can be started", err)
		default:
		}
		f.StopMember(1)
		if err := <-f.result; err != nil {
			t.Error(err)
		}
		if err := f.StartMember(0); err == nil {
			t.Error("started in a group that has ended")
		}
	})
}

func TestRestart(t *testing.T) {
	fakeTest(t, &Group{Size: 2}, func(f *fakeGroup) {
		f.expect("started 0.1", "ready 0.1", "started 1.1", "ready 1.1")
		if err := f.Restart(1); err != nil {
			t.Error(err)
		}
		f.expect("stopped 1.1", "started 1.2", "ready 1.2")
		for _, id := range []int{-1, 2} {
			if err := f.Restart(id); err == nil || !strings.Contains(err.Error(), "members 0 to 1") {
				t.Errorf("Restart(%d): %v", id, err)
			}
		}
	})
}

func TestStopWhileWaiting(t *testing.T) {
	fakeTest(t, &Group{Size: 2, BackoffMin: time.Hour, BackoffMax: time.Hour}, func(f *fakeGroup) {
		f.last(1).exit(errors.New("boom"))
		synctest.Wait()
		f.last(1).exit(errors.New("boom"))
		synctest.Wait()
		f.cancel()
		if err := <-f.result; err != nil {
			t.Error(err)
		}
		if len(f.procs) != 3 {
			t.Errorf("%d processes were started, want 3", len(f.procs))
		}
	})
}

func TestOutsideRun(t *testing.T) {
	g := &Group{Size: 1}
	g.Kill()
	if err := g.Restart(0); err == nil {
		t.Error("Restart before Run: no error")
	}
	if g.Members() != nil {
		t.Error("Members before Run")
	}
	begun := make(chan error)
	go func() { begun <- g.StartMember(0) }() // waits for Run
	if err := g.Run(t.Context()); err == nil {
		t.Error("Run without a Command: no error")
	}
	if err := <-begun; err == nil {
		t.Error("StartMember after Run: no error")
	}
	if err := g.Run(t.Context()); err == nil || err.Error() != "procgroup: Run was called before" {
		t.Errorf("the second Run: %v", err)
	}
	fakeTest(t, &Group{Size: 1}, func(f *fakeGroup) {
		p := f.last(0).p
		f.cancel()
		<-f.result
		f.Kill()
		p.Ready()
		if err := p.Signal(terminate); err == nil {
			t.Error("a signal to a process that has ended: no error")
		}
	})
}

func TestFields(t *testing.T) {
	for _, tt := range []struct {
		g    *Group
		want string
	}{
		{&Group{}, "a group of 0 processes"},
		{&Group{Size: -3}, "a group of -3 processes"},
		{&Group{Size: 1}, "no Command"},
		{&Group{Size: 1, spawn: func(*Process) (handle, error) { return nil, nil }, StopTimeout: -1}, "negative"},
	} {
		if err := tt.g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v; want an error about %q", err, tt.want)
		}
	}
}

func FuzzControl(f *testing.F) {
	for _, s := range []string{"3,1", "", "3", "-1,5", "3,1,4", "99999999999999999999,1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		fd, parent, err := parseControl(value)
		if err != nil {
			return
		}
		if fd2, parent2, err := parseControl(formatControl(fd, parent)); fd < 3 || parent < 1 || fd2 != fd || parent2 != parent || err != nil {
			t.Errorf("%q: %d, %d, %v", value, fd, parent, err)
		}
	})
}
