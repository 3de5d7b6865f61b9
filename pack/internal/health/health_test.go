package health

import (
	"slices"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/scoreboard"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// ref returns the first process of a worker.
func ref(id int) roster.Ref { return roster.Ref{Generation: 1, ID: id, Attempt: 1} }

// watch returns a monitor that watches so many workers.
func watch(workers int) (m *Monitor, refs []roster.Ref) {
	m = &Monitor{Timeout: 10 * time.Second}
	m.Pass(time.Hour)
	for id := range workers {
		m.Begin(ref(id))
		refs = append(refs, ref(id))
	}
	return m, refs
}

// kinds returns what was found of a worker.
func kinds(found []Finding, r roster.Ref) (all []Kind) {
	for _, f := range found {
		if f.Ref == r {
			all = append(all, f.Kind)
		}
	}
	return all
}

// TestHangsAtOnce has a worker hang that has not come to beat even once.
func TestHangsAtOnce(t *testing.T) {
	m, refs := watch(1)
	m.Pass(m.Timeout)
	if found := m.Look(refs); len(found) > 0 {
		t.Errorf("it was not given the time: %v", found)
	}
	m.Pass(time.Second)
	if found := m.Look(refs); !slices.Equal(kinds(found, refs[0]), []Kind{IsHung}) {
		t.Errorf("it was not found: %v", found)
	}
}

// TestForgiven has all workers of a starved machine late, and all probes fail. When the first recovers, the others must
// get the time to follow, and one that does not is found all the same.
func TestForgiven(t *testing.T) {
	for _, failure := range []string{"", "no database"} {
		m, refs := watch(3)
		var found []Finding
		// pass has time pass, in which some workers beat, and some of these say that their probe fails.
		pass := func(d time.Duration, beat, ill []roster.Ref) {
			for range d / time.Second {
				for _, r := range beat {
					v := wire.Vitals{}
					if slices.Contains(ill, r) {
						v.Probe = failure
					}
					m.Beat(r, v)
				}
				m.Pass(time.Second)
				for _, f := range m.Look(refs) {
					if f.Kind == IsHung || f.Kind == IsUnwell {
						found = append(found, f)
						m.Told(f.Ref)
					}
				}
			}
		}
		if failure == "" {
			pass(2*m.Timeout, nil, nil)
			pass(4*time.Second, refs[:1], nil)
			pass(time.Second, refs, nil)
		} else {
			pass(2*m.Timeout, refs, refs)
			pass(4*time.Second, refs, refs[1:])
			pass(time.Second, refs, nil)
		}
		if len(found) > 0 {
			t.Errorf("workers that came late were taken for hung: %v", found)
		}
		if failure == "" {
			pass(2*m.Timeout, nil, nil)
			pass(m.Timeout, refs[:2], nil)
		} else {
			pass(2*m.Timeout, refs, refs)
			pass(m.Timeout, refs, refs[2:])
		}
		if len(found) != 1 || found[0].Ref != refs[2] {
			t.Errorf("the worker that never came was not found: %v", found)
		}
	}
}

// TestStopped has connections wait at a worker that is stopped, at one that takes some, and at none of a third. The
// first is asked once, and others serve its queue soon, for as long as it is stopped, of which the log tells only when
// that has lasted for a while.
func TestStopped(t *testing.T) {
	m, refs := watch(3)
	waiting := map[roster.Ref]bool{refs[0]: true, refs[1]: true}
	at := map[Kind][]time.Duration{}
	for i := range 40 {
		m.Pass(Look)
		found := m.Queues(refs, waiting, reports(refs, 0, i, 0))
		for _, k := range kinds(found, refs[0]) {
			at[k] = append(at[k], time.Duration(i)*Look)
		}
		if len(kinds(found, refs[1])) > 0 {
			t.Fatalf("a worker that accepts all the time: %v", found)
		}
	}
	if n := len(at[Ask]); n != 1 {
		t.Errorf("asked %d times before it has answered", n)
	}
	if got := at[IsStalled]; len(got) != 1 || got[0] != 50*time.Millisecond {
		t.Errorf("others serve its queue after %v; want once, after 50 ms", got)
	}
	if got := at[StaysSo]; len(got) != 1 || got[0] != stalled {
		t.Errorf("the log tells after %v; want once, after %v", got, stalled)
	}
	if goesOn, told := m.Beat(refs[0], wire.Vitals{}); !goesOn || !told {
		t.Errorf("at a sign of life: it goes on: %v, and the log has told of it: %v", goesOn, told)
	}
}

// reports returns what workers report: how many connections they have taken.
func reports(refs []roster.Ref, accepted ...int) map[roster.Ref]scoreboard.Report {
	all := map[roster.Ref]scoreboard.Report{}
	for i, n := range accepted {
		all[refs[i]] = scoreboard.Report{Beat: 1, Accepted: uint32(n)}
	}
	return all
}

// TestGoesOn has a worker show in several ways that it works, and wants nobody to serve its queue any more at once, but
// not while it shows nothing.
func TestGoesOn(t *testing.T) {
	for name, test := range map[string]struct {
		answers bool // when it is asked
		waits   bool // a connection, in spite of others
		took    int
		beats   bool
		want    bool
	}{
		"nothing":                {waits: true},
		"served by others":       {},
		"it takes one":           {waits: true, took: 1, want: true},
		"it took the last":       {took: 1, want: true},
		"it is there again":      {waits: true, beats: true, want: true},
		"it was there":           {answers: true, waits: true, beats: true},
		"it was there, and slow": {answers: true, want: true},
	} {
		m, refs := watch(2)
		waiting := map[roster.Ref]bool{refs[0]: true}
		for range 3 {
			m.Pass(Look)
			found := m.Queues(refs, waiting, reports(refs, 0, 0))
			if test.answers && slices.Contains(kinds(found, refs[0]), Ask) {
				m.Beat(refs[0], wire.Vitals{})
			}
		}
		if !m.workers[refs[0]].Late() {
			t.Fatalf("%s: it is not late", name)
		}
		m.Pass(Look)
		goesOn := false
		if test.beats {
			goesOn, _ = m.Beat(refs[0], wire.Vitals{})
		}
		waiting[refs[0]] = test.waits
		found := m.Queues(refs, waiting, reports(refs, test.took, 0))
		goesOn = goesOn || slices.Contains(kinds(found, refs[0]), GoesOn)
		if goesOn != test.want || m.workers[refs[0]].Late() == test.want {
			t.Errorf("%s: it goes on: %v; want %v", name, goesOn, test.want)
		}
	}
}

// TestLookedAtLate has the looks come late, since the machine has too much to do: how much time has passed says little
// then.
func TestLookedAtLate(t *testing.T) {
	m, refs := watch(2)
	waiting := map[roster.Ref]bool{refs[0]: true}
	m.Queues(refs, waiting, reports(refs, 0, 0))
	m.Pass(10 * Look)
	if k := kinds(m.Queues(refs, waiting, reports(refs, 0, 0)), refs[0]); slices.Contains(k, IsStalled) {
		t.Error("at the second look others serve its queue")
	}
	m.Pass(10 * Look)
	if k := kinds(m.Queues(refs, waiting, reports(refs, 0, 0)), refs[0]); !slices.Contains(k, IsStalled) {
		t.Error("at the third look nobody does")
	}
}

// TestReportsNothing has connections wait at workers of which only signs of life tell what they take.
func TestReportsNothing(t *testing.T) {
	m, refs := watch(3)
	waiting := map[roster.Ref]bool{refs[0]: true, refs[1]: true}
	asked, at := 0, time.Duration(0)
	for i := range 40 {
		m.Pass(Look)
		found := m.Queues(refs, waiting, nil)
		if slices.Contains(kinds(found, refs[0]), IsStalled) {
			at = time.Duration(i) * Look
		}
		switch k := kinds(found, refs[1]); {
		case slices.Contains(k, Ask):
			asked++
			m.Beat(refs[1], wire.Vitals{Accepted: uint64(i)})
		case len(k) > 0:
			t.Fatalf("a worker that accepts all the time: %v", found)
		}
	}
	if at != stalled || asked == 0 || asked > 6 {
		t.Errorf("after %v others serve the queue of one, and the other is asked %d times", at, asked)
	}
}

// TestTakesNothing has a worker that works and takes nothing, and others serve what comes to it. It may try again, but
// ever more seldom.
func TestTakesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		reports, answers bool
		most             int // in a minute
	}{
		"reports":                        {true, true, 25},
		"reports nothing":                {false, true, 20},
		"says something once a second":   {true, false, 25},
		"that only, and reports nothing": {false, false, 30},
	} {
		m, refs := watch(2)
		found := 0
		for i := range int(time.Minute / Look) {
			m.Pass(Look)
			if i%40 == 0 {
				m.Beat(refs[0], wire.Vitals{})
			}
			var r map[roster.Ref]scoreboard.Report
			if test.reports {
				r = reports(refs, 0, 0)
			}
			waiting := map[roster.Ref]bool{refs[0]: !m.workers[refs[0]].Late()}
			k := kinds(m.Queues(refs, waiting, r), refs[0])
			if slices.Contains(k, IsStalled) {
				found++
			}
			if test.answers && slices.Contains(k, Ask) {
				m.Beat(refs[0], wire.Vitals{})
			}
		}
		t.Logf("%s: %d times", name, found)
		if found == 0 || found > test.most {
			t.Errorf("%s: others served its queue %d times in a minute; want at most %d", name, found, test.most)
		}
	}
}

// TestAllQueues has connections wait at all workers: that is the machine, and nobody could serve for another.
func TestAllQueues(t *testing.T) {
	m, refs := watch(2)
	waiting := map[roster.Ref]bool{refs[0]: true, refs[1]: true}
	for i := range 40 {
		m.Pass(Look)
		waiting[refs[1]] = i > 0 // at one of them a look later
		for _, f := range m.Queues(refs, waiting, reports(refs, 0, 0)) {
			if f.Kind != Ask {
				t.Fatalf("%v", f)
			}
		}
	}
}
