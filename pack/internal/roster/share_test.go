package roster

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSurplus(t *testing.T) {
	hogged := func(n int) Load { return Load{n, true} }
	is := func(n int) Load { return Load{Conns: n} }
	for _, tt := range []struct {
		loads     []Load
		tolerance float64
		want      []int
	}{
		{[]Load{is(0), is(0)}, 0, nil},
		{[]Load{is(1), is(0)}, 0, nil},
		{[]Load{is(16), is(16)}, 0, nil},
		{[]Load{is(17), is(15)}, 0, []int{1, -1}},
		{[]Load{is(8), is(7), is(8), is(9)}, 0, []int{0, -1, 0, 1}},
		{[]Load{is(7), is(8), is(8), is(8)}, 0, nil},
		{[]Load{is(20), is(6), is(6), is(0)}, 0, []int{12, -2, -2, -8}},
		{[]Load{is(520), is(504)}, 1. / 32, nil},
		{[]Load{is(600), is(424)}, 1. / 32, []int{88, -88}},
		{[]Load{is(33), is(33), is(33), is(0)}, 1. / 32, []int{8, 8, 8, -24}}, // each has few too many, but one has none
		{[]Load{hogged(8), is(8), is(8), is(8)}, 0, []int{8, -3, -3, -2}},
		{[]Load{hogged(1), is(8), is(8)}, 0, []int{1, -1, 0}},
		{[]Load{hogged(0), is(16), is(16)}, 0, nil},
		{[]Load{hogged(16), is(16)}, 0, []int{6, -6}}, // it would be too much for one
		{[]Load{hogged(10), is(22)}, 0, nil},
		{[]Load{hogged(0), is(32)}, 0, []int{-10, 10}},
		{[]Load{hogged(8), hogged(8), is(8), is(8)}, 0, []int{3, 3, -3, -3}},
		{[]Load{hogged(20), hogged(12)}, 0, []int{4, -4}}, // nobody is better
		{[]Load{is(5)}, 0, nil},
		{nil, 0, nil},
	} {
		if got := Surplus(tt.loads, tt.tolerance); !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v; want %v", tt.loads, got, tt.want)
		}
	}
}

// TestSurplusSettles has what is found put right, and looks whether that is the end of it.
func TestSurplusSettles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		loads := make([]Load, 1+r.IntN(20))
		before := 0
		for i := range loads {
			loads[i] = Load{r.IntN(100), r.IntN(8) == 0}
			before += loads[i].Conns
		}
		tolerance := r.Float64() / 4
		surplus := Surplus(loads, tolerance)
		after, sum := 0, 0
		for i := range surplus {
			loads[i].Conns -= surplus[i]
			sum += surplus[i]
		}
		for _, l := range loads {
			after += l.Conns
		}
		if sum != 0 || before != after {
			t.Fatalf("%v: the surplus %v is not that of some who others lack", loads, surplus)
		}
		if again := Surplus(loads, 0); surplus != nil && again != nil {
			t.Fatalf("%v, put right by %v, is found again: %v", loads, surplus, again)
		}
	}
}
