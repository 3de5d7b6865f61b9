package plan

import (
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/affinity"
)

// uniform is a machine with n cores, and threads hardware threads in each, whose numbers are far apart.
func uniform(cores, threads int) Machine {
	var m Machine
	for id := range cores * threads {
		var core affinity.Set
		for i := range threads {
			core.Add(id%cores + i*cores)
		}
		m.Topology = append(m.Topology, affinity.CPU{ID: id, Core: core, Cache: affinity.Of(id), Package: affinity.Of(id)})
		m.Allowed.Add(id)
	}
	return m
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name     string
		request  Request
		change   func(*Machine)
		want     string // the CPUs of each worker
		unpinned string // what the reason says
	}{
		{name: "one per CPU", want: "0 1 2 3 4 5 6 7"},
		{name: "two workers", request: Request{Workers: 2}, want: "0 1"},
		{name: "more than CPUs", request: Request{Workers: 10}, want: "0 1 2 3 4 5 6 7 0 1"},
		{name: "per core", request: Request{Placement: affinity.PerCore}, want: "0,4 1,5 2,6 3,7"},
		{name: "some CPUs", request: Request{CPUs: affinity.Of(1, 5, 6)}, want: "1 6 5"},
		{name: "a mask", change: func(m *Machine) { m.Allowed = affinity.Of(2, 3) }, want: "2 3"},
		{name: "quota", change: func(m *Machine) { m.Quota = 2.5 }, want: "0 1 2", unpinned: "the processor quota is 2.5 of 8 CPUs"},
		{name: "tiny quota", change: func(m *Machine) { m.Quota = 0.1 }, want: "0", unpinned: "0.1 of 8"},
		{name: "ample quota", change: func(m *Machine) { m.Quota = 8 }, want: "0 1 2 3 4 5 6 7"},
		{name: "quota, per core", request: Request{Placement: affinity.PerCore}, change: func(m *Machine) { m.Quota = 3 }, want: "0,4 1,5", unpinned: "3 of 8"},
		{name: "quota, but the CPUs are named", request: Request{CPUs: affinity.Of(4, 5, 6)}, change: func(m *Machine) { m.Quota = 2 }, want: "4 5"},
		{name: "quota, but the number is named", request: Request{Workers: 4}, change: func(m *Machine) { m.Quota = 2 }, want: "0 1 2 3"},
		{name: "GOMAXPROCS", change: func(m *Machine) { m.MaxProcs = 3 }, want: "0 1 2"},
		{name: "GOMAXPROCS is huge", change: func(m *Machine) { m.MaxProcs = math.MaxInt }, want: "0 1 2 3 4 5 6 7"},
		{name: "GOMAXPROCS is larger", change: func(m *Machine) { m.MaxProcs = 100 }, want: "0 1 2 3 4 5 6 7"},
	}
	for _, tt := range tests {
		m := uniform(4, 2)
		if tt.change != nil {
			tt.change(&m)
		}
		p, err := tt.request.On(m)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got []string
		for _, s := range p.Shares {
			got = append(got, s.String())
		}
		if strings.Join(got, " ") != tt.want || (p.Unpinned == "") != (tt.unpinned == "") || !strings.Contains(p.Unpinned, tt.unpinned) {
			t.Errorf("%s: %v, unpinned %q; want %s, %q", tt.name, got, p.Unpinned, tt.want, tt.unpinned)
		}
	}
	if _, err := (Request{CPUs: affinity.Of(7, 8)}).On(uniform(8, 1)); err == nil || !strings.Contains(err.Error(), `may not use "8"`) {
		t.Errorf("a CPU that may not be used: %v", err)
	}
}

// TestEqual compares what workers get, not why.
func TestEqual(t *testing.T) {
	on := func(quota float64) Plan {
		m := uniform(4, 1)
		m.Quota = quota
		p, err := Request{}.On(m)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		a, b float64
		want bool
	}{{0, 0, true}, {0.5, 0.9, true}, {0.9, 1.1, false}, {3.5, 0, false}, {0, 4, true}} {
		if got := on(tt.a).Equal(on(tt.b)); got != tt.want {
			t.Errorf("with quotas of %v and %v: equal %v", tt.a, tt.b, got)
		}
	}
}

// TestUnknownMachine has machines of which something cannot be found out. That is an error only for who has asked for
// what takes it.
func TestUnknownMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere nothing is known, and nobody is pinned")
	}
	refused := func(m *Machine) { m.NoPinning = errors.New("sched_setaffinity: refused") }
	blind := func(m *Machine) { m.Allowed, m.NoPinning = affinity.Set{}, errors.New("sched_getaffinity: refused") }
	dark := func(m *Machine) { m.NoTopology = errors.New("/sys: permission denied") }
	timeless := func(m *Machine) { m.NoQuota = errors.New("cgroup: permission denied") }
	one, perCore := affinity.Of(1), Request{Placement: affinity.PerCore}
	tests := []struct {
		name     string
		request  Request
		change   func(*Machine)
		workers  int
		unpinned string // what the reason says
		err      string // what the error says
	}{
		{name: "refused", change: refused, workers: 8, unpinned: "sched_setaffinity: refused"},
		{name: "refused, number", request: Request{Workers: 2}, change: refused, workers: 2, unpinned: "refused"},
		{name: "refused, CPUs", request: Request{CPUs: one}, change: refused, err: `CPUs "1": workers cannot be pinned`},
		{name: "refused, placement", request: perCore, change: refused, err: `placement "core": workers cannot be pinned`},
		{name: "no mask", change: blind, workers: runtime.GOMAXPROCS(0), unpinned: "sched_getaffinity"},
		{name: "no mask, number", request: Request{Workers: 2}, change: blind, workers: 2, unpinned: "sched_getaffinity"},
		{name: "no mask, CPUs", request: Request{CPUs: one}, change: blind, err: `CPUs "1": workers cannot be pinned`},
		{name: "no mask, placement", request: perCore, change: blind, err: `placement "core": workers cannot be pinned`},
		{name: "no topology", change: dark, workers: 8, unpinned: "/sys: permission denied"},
		{name: "no topology, number", request: Request{Workers: 2}, change: dark, workers: 2, unpinned: "/sys"},
		{name: "no topology, CPUs", request: Request{CPUs: affinity.Of(1, 2)}, change: dark, workers: 2},
		{name: "no topology, others' CPUs", request: Request{CPUs: affinity.Of(9)}, change: dark, err: "may not use"},
		{name: "no topology, placement", request: perCore, change: dark, err: `placement "core": which CPUs share what`},
		{name: "no quota", change: timeless, workers: 8, unpinned: "cgroup"},
		{name: "no quota, number", request: Request{Workers: 2}, change: timeless, workers: 2},
		{name: "no quota, CPUs", request: Request{CPUs: affinity.Of(1, 2)}, change: timeless, workers: 2},
		{name: "no quota, placement", request: perCore, change: timeless, workers: 4, unpinned: "cgroup"},
	}
	for _, tt := range tests {
		m := uniform(4, 2)
		tt.change(&m)
		p, err := tt.request.On(m)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %+v, %v; want an error about %q", tt.name, p, err, tt.err)
			}
			continue
		}
		if err != nil || p.Workers() != tt.workers {
			t.Errorf("%s: %+v, %v; want %d workers", tt.name, p, err, tt.workers)
			continue
		}
		if (p.Unpinned == "") != (tt.unpinned == "") || !strings.Contains(p.Unpinned, tt.unpinned) {
			t.Errorf("%s: unpinned %q, want %q", tt.name, p.Unpinned, tt.unpinned)
		}
		if p.CPUs(0).IsEmpty() != (tt.unpinned != "") {
			t.Errorf("%s: worker 0 is pinned to %q", tt.name, p.CPUs(0))
		}
	}
}
