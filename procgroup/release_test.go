package procgroup

import (
	"encoding/json"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// releaseAll lets go of the processes of a group and returns its state as another program would get it.
func (f *fakeGroup) releaseAll() *State {
	f.t.Helper()
	text, err := json.Marshal(f.Release())
	if err != nil {
		f.t.Fatal(err)
	}
	if err := <-f.result; !errors.Is(err, ErrReleased) {
		f.t.Errorf("Run: %v; want ErrReleased", err)
	}
	s := new(State)
	if err := json.Unmarshal(text, s); err != nil {
		f.t.Fatal(err)
	}
	return s
}

// adopt runs a group that adopts the processes of f, in the same bubble.
func (f *fakeGroup) adopt(s *State) *fakeGroup {
	next := f.successor(s)
	next.begin()
	return next
}

func (f *fakeGroup) begin() { go func() { f.result <- f.Run(f.t.Context()) }() }

// successor returns a group that will adopt the processes of f.
func (f *fakeGroup) successor(s *State) *fakeGroup {
	g := &Group{
		Size: f.Size, ReadyTimeout: f.ReadyTimeout, StopTimeout: f.StopTimeout, Healthy: f.Healthy,
		BackoffMin: f.BackoffMin, BackoffMax: f.BackoffMax, Adopt: s,
		Event: f.Event, // one log for both
	}
	next := &fakeGroup{Group: g, t: f.t, procs: f.procs, fails: f.fails, result: make(chan error, 1)}
	next.spawn = func(p *Process) (handle, error) {
		next.mu.Lock()
		defer next.mu.Unlock()
		p.PID = 1000 + len(next.procs)
		next.procs = append(next.procs, &fakeProcess{p: p, g: next, gone: make(chan struct{}), released: make(chan struct{})})
		return next.procs[len(next.procs)-1], nil
	}
	g.adopt = func(p *Process, _ *os.File) (handle, error) {
		next.mu.Lock()
		defer next.mu.Unlock()
		if err := next.fails[p.ID]; err != nil {
			return nil, err
		}
		next.procs = append(next.procs, &fakeProcess{p: p, g: next, gone: make(chan struct{}), released: make(chan struct{})})
		return next.procs[len(next.procs)-1], nil
	}
	return next
}

// TestAdoptedGroupGoesOn releases a group with members in all phases.
func TestAdoptedGroupGoesOn(t *testing.T) {
	fakeTest(t, &Group{Size: 5, ReadyTimeout: time.Minute, StopTimeout: time.Minute}, func(f *fakeGroup) {
		f.stubborn.Store(true)
		f.last(0).p.Ready()
		f.expect("started 0.1", "ready 0.1", "started 1.1", "started 2.1", "started 3.1", "started 4.1")
		f.last(1).p.Ready()
		f.last(2).p.Ready()
		f.last(2).exit(errors.New("boom"))
		synctest.Wait()
		f.last(2).exit(errors.New("boom")) // at once again: it waits for its third attempt
		f.last(3).p.Ready()
		if err := f.Restart(3); err != nil {
			t.Fatal(err)
		}
		f.expect("ready 1.1", "ready 2.1", "failed 2.1: boom", "started 2.2", "failed 2.2: boom", "ready 3.1")
		before := f.last(0).p.PID
		next := f.adopt(f.releaseAll())
		f.expect() // nobody notices anything
		if m := next.Members(); m[0].PID != before || !m[0].Ready || m[4].Ready || m[4].PID == 0 || m[2].PID != 0 || m[2].Failures != 2 {
			t.Errorf("%+v", m)
		}
		if f.post(func(*owner) {}) {
			t.Error("the first group still works")
		}
		next.last(4).p.Ready()             // was starting
		next.last(1).exit(errors.New("x")) // was ready
		next.last(3).exit(nil)             // was asked to end, to be started anew
		f.expect("ready 4.1", "failed 1.1: x", "started 1.2", "stopped 3.1", "started 3.2")
		time.Sleep(time.Second) // was waiting
		f.expect("started 2.3")
	})
}

// TestAdoptedDeadlines releases a group whose processes were asked to end, and take too long for that.
func TestAdoptedDeadlines(t *testing.T) {
	fakeTest(t, &Group{Size: 1, StopTimeout: time.Minute}, func(f *fakeGroup) {
		f.stubborn.Store(true)
		f.cancel()
		f.expect("started 0.1", "ready 0.1")
		time.Sleep(30 * time.Second)
		next := f.adopt(f.releaseAll())
		time.Sleep(29 * time.Second)
		f.expect()
		time.Sleep(2 * time.Second)
		f.expect("killed 0.1: not ended within 1m0s", "stopped 0.1: killed: not ended within 1m0s")
		if err := <-next.result; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestAdoptionFails has a process that cannot be taken over.
func TestAdoptionFails(t *testing.T) {
	fakeTest(t, &Group{Size: 2, ReadyTimeout: time.Minute}, func(f *fakeGroup) {
		f.last(0).p.Ready()
		f.expect("started 0.1", "ready 0.1", "started 1.1")
		f.last(1).p.Ready()
		f.expect("ready 1.1")
		f.failStart(1, errors.New("no such descriptor"))
		f.adopt(f.releaseAll())
		f.expect("failed 1.1: adopt process 1001: no such descriptor", "started 1.2")
	})
}

// TestAskedBeforeItAdopts asks a group for something before it has taken over the processes that it is about.
func TestAskedBeforeItAdopts(t *testing.T) {
	fakeTest(t, &Group{Size: 2}, func(f *fakeGroup) {
		f.expect("started 0.1", "ready 0.1", "started 1.1", "ready 1.1")
		next := f.successor(f.releaseAll())
		go next.StopMember(1)
		synctest.Wait()
		next.begin()
		f.expect("stopped 1.1")

		last := next.successor(next.releaseAll())
		go last.Kill()
		synctest.Wait()
		last.begin()
		f.expect("killed 0.1: asked to", "failed 0.1: killed: asked to", "started 0.2", "ready 0.2")
	})
}

// TestReleaseWhileOneEnds lets go of a process whose end is being dealt with.
func TestReleaseWhileOneEnds(t *testing.T) {
	fakeTest(t, &Group{Size: 2}, func(f *fakeGroup) {
		f.expect("started 0.1", "ready 0.1", "started 1.1", "ready 1.1")
		f.last(1).reaping = true
		state := make(chan *State)
		go func() { state <- f.Release() }()
		synctest.Wait()
		f.last(1).exit(errors.New("boom"))
		s := <-state
		if s.Members[1].PID != 0 || s.Members[1].Failures != 1 || s.Members[0].PID == 0 {
			t.Errorf("%+v", s)
		}
		f.expect("failed 1.1: boom") // it is for the other group to start it again
		f.adopt(s)
		f.expect("started 1.2", "ready 1.2")
	})
}

func TestReleaseOfEndedGroup(t *testing.T) {
	fakeTest(t, &Group{Size: 1}, func(f *fakeGroup) {
		f.cancel()
		<-f.result
		if s := f.Release(); s != nil {
			t.Errorf("%+v", s)
		}
	})
}
