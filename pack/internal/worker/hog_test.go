package worker

import (
	"testing"
	"time"
)

func TestIsHogged(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		turn turn
		want bool
	}{
		{"a goroutine computes", turn{late: 10 * ms, used: 11 * ms}, true},
		{"and others are served now and then", turn{late: 40 * ms, used: 40 * ms, served: 4}, true},
		{"and all others are served between its turns", turn{late: 10 * ms, used: 12 * ms, served: 32}, true},
		{"in time", turn{late: ms, used: 2 * ms}, false},
		{"another process has the CPU", turn{late: 10 * ms, used: ms}, false},
		{"many requests in turn", turn{late: 10 * ms, used: 11 * ms, served: 500}, false},
		{"fewer that take longer", turn{late: 6 * ms, used: 8 * ms, served: 64}, false},
		{"another process shares the CPU with this one", turn{late: 4 * ms, used: 4 * ms, served: 4}, false},
		{"early", turn{late: -ms}, false},
	} {
		if is := c.turn.isHogged(); is != c.want {
			t.Errorf("%s: %v", c.name, is)
		}
	}
}

// TestFirstTurnOfAHogShows has one begin at any time: it shows when it has computed for 10 ms, though nobody looks more
// often than the kernel does anyway.
func TestFirstTurnOfAHogShows(t *testing.T) {
	const computes = 10 * time.Millisecond
	for begins := time.Duration(0); begins < hogTick; begins += hogTick / 10 { // so long after a look
		if turn := (turn{late: begins + computes - hogTick, used: computes}); !turn.isHogged() {
			t.Errorf("one that begins %v after a look does not show: %+v", begins, turn)
		}
	}
	if perSecond := time.Second / hogTick; perSecond >= 250 {
		t.Errorf("a worker looks %d times a second", perSecond)
	}
}

// TestHogWatch goes through what comes after one another.
func TestHogWatch(t *testing.T) {
	hogged, calm := turn{late: 10 * time.Millisecond, used: 10 * time.Millisecond}, turn{}
	var h hogWatch
	start := time.Unix(1000, 0)
	for _, step := range []struct {
		at   time.Duration // since the start
		turn turn
		want bool
	}{
		{0, calm, false},
		{time.Second, hogged, true},
		{time.Second + holdMin/2, calm, true},
		{time.Second + holdMin + 1, calm, false},
		{time.Second + holdMin + 2, hogged, true}, // it was still there: longer
		{time.Second + 2*holdMin + 3, calm, true},
		{time.Second + 3*holdMin + 3, calm, false},
		{time.Second + 3*holdMin + 4, hogged, true},
		{time.Second + 6*holdMin, hogged, true}, // even with two
		{time.Second + 9*holdMin, calm, true},
		{time.Second + 11*holdMin, calm, false},
		{time.Hour, hogged, true}, // another: as at first
		{time.Hour + holdMin + 1, calm, false},
	} {
		if is := h.after(step.turn, start.Add(step.at)); is != step.want {
			t.Errorf("after %v: %v", step.at, is)
		}
	}
	for range 100 {
		now := h.narrow.Add(time.Millisecond)
		h.after(hogged, now)
		h.after(calm, now.Add(2*holdMax))
	}
	if h.hold != holdMax {
		t.Errorf("it holds for %v, want %v", h.hold, holdMax)
	}
}
