package steer

import "github.com/gopherpack/gopherpack/affinity"

// nearest returns the worker of each CPU: that which is pinned to it, or else one that shares its core, its last-level
// cache, or its node. Those that share the same get the CPUs around them in turn. A CPU that is near to none has none.
func nearest(t affinity.Topology, workers []affinity.Set) map[int]int {
	all := map[int]int{}
	for id, cpus := range workers {
		for cpu := range cpus.All() {
			if _, ok := all[cpu]; !ok {
				all[cpu] = id
			}
		}
	}
	given := map[int]int{} // CPUs beside their own, by worker
	for _, c := range t {
		if _, ok := all[c.ID]; ok {
			continue
		}
		for _, around := range []affinity.Set{c.Core, c.Cache, node(t, c.Node)} {
			best := -1
			for id, cpus := range workers {
				if cpus.Intersect(around).Len() > 0 && (best < 0 || given[id] < given[best]) {
					best = id
				}
			}
			if best >= 0 {
				all[c.ID] = best
				given[best]++
				break
			}
		}
	}
	return all
}

// node returns the CPUs of a NUMA node.
func node(t affinity.Topology, n int) (cpus affinity.Set) {
	for _, c := range t {
		if c.Node == n {
			cpus.Add(c.ID)
		}
	}
	return cpus
}
