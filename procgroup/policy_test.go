package procgroup

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRestartOnFailure has processes end in each way under RestartOnFailure.
func TestRestartOnFailure(t *testing.T) {
	fakeTest(t, &Group{Size: 4, RestartPolicy: RestartOnFailure}, func(f *fakeGroup) {
		f.expect("started 0.1", "ready 0.1", "started 1.1", "ready 1.1",
			"started 2.1", "ready 2.1", "started 3.1", "ready 3.1")
		f.last(0).exit(nil)
		f.last(1).exit(errors.New("exit status 1"))
		f.last(2).p.Fail(errors.New("no database"))
		f.last(2).exit(nil) // whatever its exit status
		f.last(3).exit(exec.ErrWaitDelay)
		f.expect("done 0.1", "failed 1.1: exit status 1", "started 1.2", "ready 1.2",
			"failed 2.1: no database", "started 2.2", "ready 2.2", "done 3.1: exec: WaitDelay expired before I/O complete")
		time.Sleep(time.Hour)
		f.expect()
		if err := f.Restart(1); err != nil { // asks it to end
			t.Error(err)
		}
		f.expect("stopped 1.2", "started 1.3", "ready 1.3")
		if err := f.StartMember(0); err != nil { // another piece of work
			t.Error(err)
		}
		f.expect("started 0.2", "ready 0.2")
		for id := range 3 {
			f.last(id).exit(nil)
		}
		if err := <-f.result; err != nil {
			t.Errorf("Run: %v; all have done their work", err)
		}
	})
}

// TestRestartOnFailureBeforeReady has a process end that should have said that it is ready.
func TestRestartOnFailureBeforeReady(t *testing.T) {
	fakeTest(t, &Group{Size: 2, RestartPolicy: RestartOnFailure, ReadyTimeout: time.Minute}, func(f *fakeGroup) {
		f.last(0).p.Ready()
		f.expect("started 0.1", "ready 0.1", "started 1.1")
		f.last(1).exit(nil)
		f.expect("failed 1.1: ended by itself, with exit status 0", "started 1.2")
	})
}

// TestRestartNever has some fail; Run waits for the others, and tells of the first.
func TestRestartNever(t *testing.T) {
	fakeTest(t, &Group{Size: 3, RestartPolicy: RestartNever}, func(f *fakeGroup) {
		f.expect("started 0.1", "ready 0.1", "started 1.1", "ready 1.1", "started 2.1", "ready 2.1")
		first := errors.New("exit status 4")
		f.last(1).exit(first)
		synctest.Wait()
		f.last(2).exit(errors.New("exit status 5"))
		f.expect("failed 1.1: exit status 4", "failed 2.1: exit status 5")
		time.Sleep(time.Hour)
		f.last(0).exit(nil)
		f.expect("done 0.1")
		err := <-f.result
		if e, ok := errors.AsType[*MemberError](err); !ok || e.ID != 1 || e.GaveUp || !errors.Is(err, first) {
			t.Errorf("Run: %v; want the first failure", err)
		}
	})
	for _, fails := range []bool{false, true} { // the very first process
		fakeTest(t, &Group{Size: 1, RestartPolicy: RestartNever}, func(f *fakeGroup) {
			if fails {
				f.last(0).exit(errors.New("boom"))
			} else {
				f.last(0).exit(nil)
			}
			if err := <-f.result; (err != nil) != fails {
				t.Errorf("Run: %v; fails is %v", err, fails)
			}
		})
	}
}

// TestMaxFailures has one member fail again and again, which Run bears until it has failed three times more than was
// forgiven.
func TestMaxFailures(t *testing.T) {
	fakeTest(t, &Group{Size: 3, MaxFailures: 3, Healthy: time.Minute}, func(f *fakeGroup) {
		boom := func() {
			f.last(1).exit(errors.New("boom"))
			time.Sleep(time.Second)
		}
		boom()
		boom()
		time.Sleep(time.Minute) // one is forgiven
		boom()
		if len(f.result) > 0 {
			t.Fatalf("Run ended: %v", <-f.result)
		}
		f.last(1).exit(errors.New("bang"))
		err := <-f.result
		if e, ok := errors.AsType[*MemberError](err); !ok || e.ID != 1 || e.Failures != 3 {
			t.Errorf("Run: %#v", err)
		}
		if want := "procgroup: gave up at failure 3 of member 1: bang"; err.Error() != want {
			t.Errorf("Run: %q; want %q", err, want)
		}
		f.mu.Lock()
		log := strings.Join(f.log, "; ")
		f.mu.Unlock()
		for _, want := range []string{"stopped 0.1", "stopped 2.1", "failed 1.4: bang"} {
			if !strings.Contains(log, want) {
				t.Errorf("%q is not in %s", want, log)
			}
		}
	})
}

// TestMaxFailuresOfOne has the first failure end a group that replaces nothing.
func TestMaxFailuresOfOne(t *testing.T) {
	fakeTest(t, &Group{Size: 2, MaxFailures: 1, RestartPolicy: RestartNever}, func(f *fakeGroup) {
		f.expect("started 0.1", "ready 0.1", "started 1.1", "ready 1.1")
		f.last(1).exit(errors.New("boom"))
		f.expect("failed 1.1: boom", "stopped 0.1")
		if err := <-f.result; err == nil || err.Error() != "procgroup: gave up at failure 1 of member 1: boom" {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestAdoptedGroupGivesUp releases a group that has given up, and waits for a process that does not end.
func TestAdoptedGroupGivesUp(t *testing.T) {
	fakeTest(t, &Group{Size: 2, MaxFailures: 1, StopTimeout: time.Minute}, func(f *fakeGroup) {
		f.stubborn.Store(true)
		f.last(1).exit(errors.New("boom"))
		f.expect("started 0.1", "ready 0.1", "started 1.1", "ready 1.1", "failed 1.1: boom")
		next := f.adopt(f.releaseAll())
		next.last(0).exit(nil)
		if err := <-next.result; err == nil || err.Error() != "procgroup: gave up at failure 1 of member 1: boom" {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestPolicyFields(t *testing.T) {
	spawn := func(*Process) (handle, error) { return nil, errors.New("not reached") }
	for want, g := range map[string]*Group{
		"no such policy: RestartPolicy(3)":   {Size: 1, spawn: spawn, RestartPolicy: 3},
		"MaxFailures or MaxLine is negative": {Size: 1, spawn: spawn, MaxFailures: -1},
	} {
		if err := g.Run(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	for p, want := range map[RestartPolicy]string{
		RestartAlways: "always", RestartOnFailure: "on failure", RestartNever: "never",
	} {
		if p.String() != want {
			t.Errorf("%v; want %s", p, want)
		}
	}
}
