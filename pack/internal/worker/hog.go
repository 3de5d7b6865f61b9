package worker

import (
	"context"
	"os"
	"runtime"
	"time"
)

// hogWatch tells from how long goroutines wait whether one of them keeps the others from their only CPU. Go lets a
// goroutine compute for 10 ms before it stops it for others. With GOMAXPROCS 2 the threads of the worker share its CPU
// instead, and the kernel lets in at once whoever has computed little; but that costs 15 to 25 % more processor time
// per request, so it is for when somebody does compute for long.
type hogWatch struct {
	wide   bool          // GOMAXPROCS is to be 2
	until  time.Time     // when to try whether it is still needed, if wide
	narrow time.Time     // since when it is not wide
	hold   time.Duration // for how long it is wide at once
}

const (
	// lateness is how much later than it should a goroutine must run for another to count as a hog.
	lateness = 3 * time.Millisecond

	// shortTurn is how long those requests take that make others wait by being many.
	shortTurn = 200 * time.Microsecond

	// holdMin and holdMax are how long it stays wide at once: longer each time, if it was needed again soon.
	holdMin = 300 * time.Millisecond
	holdMax = 10 * time.Second
)

// turn is what happened while a goroutine waited, for hogTick and then for its turn.
type turn struct {
	late   time.Duration // how long it waited for its turn
	used   time.Duration // processor time that this process has used
	served uint64        // requests that have begun
}

// isHogged reports whether a goroutine of this process had the CPU for most of that: not another process, and not many
// requests in turn.
func (t turn) isHogged() bool {
	return t.late > lateness && t.used > (hogTick+t.late)/2 && time.Duration(t.served)*shortTurn < t.late
}

// after notes a turn, and reports whether GOMAXPROCS is to be 2.
func (h *hogWatch) after(t turn, now time.Time) (wide bool) {
	switch {
	case t.isHogged():
		if !h.wide {
			h.wide = true
			if again := now.Sub(h.narrow) < h.hold; again {
				h.hold = min(2*h.hold, holdMax)
			} else {
				h.hold = holdMin
			}
		}
		h.until = now.Add(h.hold)
	case h.wide && now.After(h.until):
		h.wide, h.narrow = false, now
	}
	return h.wide
}

// hogTick is how long the goroutine waits by which hogs are noticed. With lateness it is less than the 10 ms that a
// goroutine may compute at once, so that the first turn of a hog shows. It is more than the tick of most kernels, 4 ms:
// for less, they would have to set a clock each time that this process waits.
const hogTick = 6 * time.Millisecond

// restAfter is for how long nothing must have happened until it does not look any more.
const restAfter = 200 * time.Millisecond

// relieve gives this worker a second P (see [runtime.GOMAXPROCS]) for as long as one of its goroutines keeps the others
// waiting, until ctx ends, or the program sets another number, which stays. It does nothing in a worker that has more
// than one CPU, or a GOMAXPROCS in its environment.
func (r *reporter) relieve(ctx context.Context) {
	if _, ok := processorTime(); !ok || os.Getenv("GOMAXPROCS") != "" ||
		runtime.NumCPU() != 1 || runtime.GOMAXPROCS(0) != 1 {
		return
	}
	r.woken = make(chan moment, 1)
	var watch hogWatch
	isWide, calm := false, time.Now()
	defer func() {
		if isWide {
			setWide(false)
			r.isHogged(false)
		}
	}()
	last := r.moment()
	for ctx.Err() == nil {
		time.Sleep(hogTick)
		now := r.moment()
		t := turn{late: now.at.Sub(last.at) - hogTick, used: now.used - last.used, served: now.served - last.served}
		if wide := watch.after(t, now.at); wide != isWide {
			if runtime.GOMAXPROCS(0) != procs(isWide) {
				return
			}
			setWide(wide)
			r.isHogged(wide)
			isWide = wide
			now = r.moment() // to set it takes a while
		}
		if t.served > 0 || t.used > hogTick/4 || isWide {
			calm = now.at
		}
		if last = now; now.at.Sub(calm) > restAfter {
			if last = r.rest(ctx); ctx.Err() != nil {
				return
			}
			calm = time.Now()
		}
	}
}

func procs(wide bool) int {
	if wide {
		return 2
	}
	return 1
}

// setWide sets GOMAXPROCS, or leaves it to the runtime again, which sees one CPU.
func setWide(wide bool) {
	if wide {
		runtime.GOMAXPROCS(2)
	} else if runtime.GOMAXPROCS(0) == 2 {
		runtime.SetDefaultGOMAXPROCS()
	}
}

// moment is what a process had done at some time.
type moment struct {
	at     time.Time
	used   time.Duration // processor time
	served uint64
}

func (r *reporter) moment() moment {
	used, _ := processorTime()
	return moment{time.Now(), used, r.served.Load()}
}

// rest waits until something is to be served, and returns when it was.
func (r *reporter) rest(ctx context.Context) moment {
	r.resting.Store(true)
	select {
	case m := <-r.woken:
		return m
	case <-ctx.Done():
		return moment{}
	}
}

// wake is called when something is to be served, or has been computed for a while.
func (r *reporter) wake() {
	if r.resting.CompareAndSwap(true, false) {
		r.woken <- r.moment()
	}
}
