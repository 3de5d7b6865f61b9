package roster

import (
	"cmp"
	"slices"
)

// Load is what a worker has that others could have instead.
type Load struct {
	Conns  int  // connections that are kept alive, and can be handed over
	Hogged bool // some of its work keeps the rest waiting: others are to have it
}

// Surplus returns by how many connections each worker has more than its share, fewer if that is negative. It returns nil
// if each has about its share: no more than one, or tolerance of it, off.
func Surplus(loads []Load, tolerance float64) []int {
	var able []int
	total := 0
	for i, l := range loads {
		total += l.Conns
		if !l.Hogged {
			able = append(able, i)
		}
	}
	if len(able) == 0 {
		for i := range loads {
			able = append(able, i)
		}
	}
	if total == 0 {
		return nil
	}
	share, rest := total/len(able), total%len(able)
	slack := int(tolerance * float64(share))
	slices.SortStableFunc(able, func(a, b int) int { return cmp.Compare(loads[b].Conns, loads[a].Conns) })
	surplus := make([]int, len(loads))
	for i, l := range loads {
		surplus[i] = l.Conns // of one that is hogged
	}
	for n, i := range able {
		surplus[i] -= share
		if n < rest { // they have most anyway
			surplus[i]--
		}
	}
	off := func(i int) bool { return surplus[i] > slack || surplus[i] < -slack }
	for i := range loads {
		if off(i) {
			return surplus
		}
	}
	return nil
}
