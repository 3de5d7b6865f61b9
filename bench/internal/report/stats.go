package report

import (
	"maps"
	"slices"
)

// Spread is the median of some values, and the least and the most of them.
type Spread struct{ Median, Min, Max float64 }

// spreadOf returns that of at least one value.
func spreadOf(values []float64) Spread {
	return Spread{median(values), slices.Min(values), slices.Max(values)}
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// row is a server in a scenario, on a number of CPUs.
type row struct {
	server string
	own    bool
	rounds map[string]map[int]float64 // of each figure
	failed string
}

// values returns a figure of each round.
func (r *row) values(figure string) []float64 {
	if r == nil {
		return nil
	}
	return slices.Collect(maps.Values(r.rounds[figure]))
}

// value returns the spread of a figure, and whether there is one.
func (r *row) value(f Figure) (Spread, bool) {
	values := r.values(f.Name)
	if len(values) == 0 {
		return Spread{}, false
	}
	if !f.Sum {
		return spreadOf(values), true
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return Spread{sum, sum, sum}, true
}

// ratio returns the spread of the ratios, each within a round, of a figure of this row to that of another: what
// disturbs a whole round then disturbs no ratio.
func (r *row) ratio(to *row, figure string) (Spread, bool) {
	if r == nil || to == nil {
		return Spread{}, false
	}
	var ratios []float64
	for round, v := range r.rounds[figure] {
		if base, ok := to.rounds[figure][round]; ok && base > 0 {
			ratios = append(ratios, v/base)
		}
	}
	if len(ratios) == 0 {
		return Spread{}, false
	}
	return spreadOf(ratios), true
}

// table is a scenario on a number of CPUs.
type table struct {
	Scenario
	cpus int
	rows []*row
	one  bool // all tables are of the same number
}

func (t *table) row(server string) *row {
	for _, r := range t.rows {
		if r.server == server {
			return r
		}
	}
	return nil
}

func (t *table) base() *row { return t.row(t.Base) }

// tables returns those of all scenarios of which there are samples. Servers stand in the order of the first round.
func (r *Raw) tables() (all []*table) {
	one := !slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.CPUs != r.Samples[0].CPUs })
	for _, s := range r.Scenarios {
		found := map[int]*table{}
		for _, sample := range r.Samples {
			if sample.Scenario != s.Name {
				continue
			}
			t := found[sample.CPUs]
			if t == nil {
				t = &table{Scenario: s, cpus: sample.CPUs, one: one}
				found[sample.CPUs] = t
				all = append(all, t)
			}
			t.add(sample)
		}
	}
	return all
}

func (t *table) add(s Sample) {
	r := t.row(s.Server)
	if r == nil {
		r = &row{server: s.Server, own: s.Own, rounds: map[string]map[int]float64{}}
		t.rows = append(t.rows, r)
	}
	if s.Failed != "" {
		r.failed = s.Failed
	}
	for figure, v := range s.Values {
		if r.rounds[figure] == nil {
			r.rounds[figure] = map[int]float64{}
		}
		r.rounds[figure][s.Round] = v
	}
}
