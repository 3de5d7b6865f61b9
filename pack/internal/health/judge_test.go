package health

import (
	"slices"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		silent, failing []time.Duration
		want            []Verdict
	}{
		{nil, nil, nil},
		{[]time.Duration{0, 5 * s}, []time.Duration{0, 0}, []Verdict{Works, Works}},
		{[]time.Duration{0, 6 * s}, []time.Duration{0, 0}, []Verdict{Works, Late}},
		{[]time.Duration{0, 11 * s}, []time.Duration{0, 11 * s}, []Verdict{Works, Hung}},
		{[]time.Duration{6 * s, 11 * s}, []time.Duration{0, 0}, []Verdict{Works, Works}}, // all are late
		{[]time.Duration{6 * s, 31 * s}, []time.Duration{0, 0}, []Verdict{Works, Hung}},
		{[]time.Duration{6 * s}, []time.Duration{0}, []Verdict{Works}}, // nobody could serve its queue
		{[]time.Duration{11 * s}, []time.Duration{0}, []Verdict{Hung}},
		{[]time.Duration{0, 0}, []time.Duration{0, 11 * s}, []Verdict{Works, Unwell}},
		{[]time.Duration{0, 0}, []time.Duration{6 * s, 11 * s}, []Verdict{Works, Works}}, // no probe Works
		{[]time.Duration{0}, []time.Duration{11 * s}, []Verdict{Unwell}},
	} {
		if got, _ := Judge(test.silent, test.failing, 10*s); !slices.Equal(got, test.want) {
			t.Errorf("silent for %v, probes failing for %v: %v; want %v", test.silent, test.failing, got, test.want)
		}
	}
}
