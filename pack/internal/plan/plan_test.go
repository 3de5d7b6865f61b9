package plan

import (
	"math"
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
