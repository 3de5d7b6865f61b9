package health

import (
	"slices"
	"testing"
	"time"

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

// TestQueue has connections wait at a worker that takes none, at one that takes some, and at one that works but takes
// none.
func TestQueue(t *testing.T) {
	m, refs := watch(3)
	waiting := map[roster.Ref]bool{refs[0]: true, refs[1]: true}
	asked, stalledAt := 0, time.Duration(0)
	for i := range 10 {
		m.Pass(Look)
		m.Beat(refs[1], wire.Vitals{Accepted: uint64(i)})
		found := m.Queues(refs, waiting)
		for _, k := range kinds(found, refs[0]) {
			if k == Ask {
				asked++
			} else if k == IsStalled {
				stalledAt = time.Duration(i+1) * Look
			}
		}
		if slices.Contains(kinds(found, refs[1]), IsStalled) {
			t.Fatal("a worker that accepts all the time counts as stalled")
		}
	}
	if asked == 0 || stalledAt == 0 || stalledAt > time.Second {
		t.Errorf("asked %d times, found after %v; want that within a second", asked, stalledAt)
	}
	// It works, but takes nothing: it is left to try again after a while.
	if m.Beat(refs[0], wire.Vitals{}) {
		t.Error("a worker that takes nothing goes on at once")
	}
	m.Pass(retry)
	if !m.Beat(refs[0], wire.Vitals{}) {
		t.Error("it is never left to try again")
	}
	// It takes something: it goes on at once.
	for range 5 {
		m.Pass(Look)
		m.Queues(refs, waiting)
	}
	if !m.workers[refs[0]].Late() {
		t.Fatal("it was not found again")
	}
	m.Pass(Look)
	if !m.Beat(refs[0], wire.Vitals{Accepted: 1}) {
		t.Error("a worker that accepts again does not go on")
	}
}

// TestTakesNothing has a worker that works and takes nothing, while others serve its queue, which is empty then.
func TestTakesNothing(t *testing.T) {
	for silent, most := range map[bool]int{false: 12, true: 60} {
		m, refs := watch(2)
		found := 0
		for i := range int(time.Minute / Look) {
			m.Pass(Look)
			if !silent || i%5 == 0 {
				m.Beat(refs[0], wire.Vitals{})
			}
			waiting := map[roster.Ref]bool{refs[0]: !m.workers[refs[0]].Late()}
			if slices.Contains(kinds(m.Queues(refs, waiting), refs[0]), IsStalled) {
				found++
			}
		}
		if found == 0 || found > most {
			t.Errorf("silent in between: %v: it was found %d times in a minute; want at most %d", silent, found, most)
		}
	}
}

// TestAllQueues has connections wait at all workers: that is the machine, and nobody could serve for another.
func TestAllQueues(t *testing.T) {
	m, refs := watch(2)
	waiting := map[roster.Ref]bool{refs[0]: true, refs[1]: true}
	for range 20 {
		m.Pass(Look)
		for _, f := range m.Queues(refs, waiting) {
			if f.Kind != Ask {
				t.Fatalf("%v", f)
			}
		}
	}
}
