//go:build linux

package pack_test

import (
	"testing"

	"github.com/gopherpack/gopherpack/affinity"
)

// TestCPUsChange takes the master a CPU and gives it back, as an update of a container does, under load.
func TestCPUsChange(t *testing.T) {
	t.Parallel()
	all, err := affinity.Allowed(0)
	if err != nil {
		t.Fatal(err)
	}
	if all.Len() < 2 {
		t.Skip("there is one CPU")
	}
	p := start(t, "http", nil)
	p.addresses()
	connecting := apply(t, load(p, 8, 0))
	var first affinity.Set
	for cpu := range all.All() {
		first.Add(cpu)
		break
	}
	for i, cpus := range []affinity.Set{first, all} {
		if err := affinity.Process(p.cmd.Process.Pid, cpus); err != nil {
			t.Fatal(err)
		}
		p.logged(i+1, "workers placed")
		p.hasWorkers(cpus.Len())
		p.hasSockets(cpus.Len())
	}
	if r := connecting.finish(); failedScaling(r) != 0 {
		t.Error(r)
	}
	p.stop()
}
