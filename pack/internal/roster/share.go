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
// if each has about its share: no more than one, or tolerance of it, off. The share of one that is hogged is nothing,
// or half of another's if it would be too much for the others.
func Surplus(loads []Load, tolerance float64) []int {
	if len(loads) == 0 {
		return nil
	}
	weights, total, sum := weights(loads), 0, 0
	order := make([]int, len(loads)) // who has most first
	for i, l := range loads {
		order[i] = i
		total += l.Conns
		sum += weights[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(loads[b].Conns, loads[a].Conns) })
	surplus, rest := make([]int, len(loads)), total
	for i := range loads {
		share := total * weights[i] / sum
		surplus[i] = loads[i].Conns - share
		rest -= share
	}
	for rest > 0 {
		for _, i := range order {
			if weights[i] == whole && rest > 0 {
				surplus[i]--
				rest--
			}
		}
	}
	slack := int(tolerance * float64(total/len(loads)))
	if slices.ContainsFunc(surplus, func(n int) bool { return n > slack || n < -slack }) {
		return surplus
	}
	return nil
}

const (
	half  = 1
	whole = 2
)

// weights returns what part of the connections each is to have.
func weights(loads []Load) []int {
	able := 0
	for _, l := range loads {
		if !l.Hogged {
			able++
		}
	}
	ofHogged := 0
	switch {
	case able == 0: // nobody is better off
		ofHogged = whole
	case len(loads)*2 > able*3: // each of the others would have half of its share more
		ofHogged = half
	}
	all := make([]int, len(loads))
	for i, l := range loads {
		all[i] = whole
		if l.Hogged {
			all[i] = ofHogged
		}
	}
	return all
}
