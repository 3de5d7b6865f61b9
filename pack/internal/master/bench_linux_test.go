package master

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/pack/internal/sockets"
)

// BenchmarkOwner has a pack of 1,024 workers that serve 8 addresses: it starts, workers beat, connections wait, one
// worker after the other dies, and all are replaced in a reload. It tells how long the owner takes over an event, on
// the average and at most, and which share of a CPU it takes while nothing but beats comes, by the CPU time of its
// thread.
func BenchmarkOwner(b *testing.B) {
	const workers = 1024
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		w := newWorld(settings())
		w.endpoints = len(endpointsOf)
		w.clock = threadTime
		var events int
		var all, longest time.Duration
		var what event
		w.observe = func(e event, d time.Duration) {
			events++
			all += d
			if d > longest {
				longest, what = d, e
			}
		}
		w.post(begin{endpoints: endpointsOf, spec: spec{plan: sharesOf(workers)}})
		if !w.core.current.up {
			b.Fatal("it is not up")
		}
		b.ReportMetric(float64(all.Microseconds())/float64(events), "µs/event-of-start")
		all = 0
		w.pass(10 * time.Second)
		b.ReportMetric(100*all.Seconds()/10, "%-idle")
		all, events = 0, 0
		for id := range 64 {
			w.waiting[sockets.Ref{Endpoint: endpointsOf[0], Socket: id}] = true
			if err := w.do("die", []string{fmt.Sprint(id)}); err != nil {
				b.Fatal(err)
			}
		}
		w.post(reload{})
		w.pass(3 * time.Second)
		if w.core.current.number != 2 || len(w.core.generations) != 1 {
			b.Fatal("it has not been reloaded")
		}
		b.ReportMetric(float64(all.Microseconds())/float64(events), "µs/event-of-change")
		b.ReportMetric(float64(longest.Microseconds()), "µs-longest")
		b.Logf("the longest: %T", what)
	}
}

// threadTime returns how long this thread has had a CPU.
func threadTime() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}
