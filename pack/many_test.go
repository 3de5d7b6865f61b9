//go:build linux

package pack_test

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// TestManyWorkers has a pack of many workers start, be reloaded, become one fewer, and stop, under load. It tells what
// the master costs for each.
func TestManyWorkers(t *testing.T) {
	workers := test.Times(24, 256)
	p := start(t, "http", nil, "-workers="+strconv.Itoa(workers), "-ready=60s", "-minready=1s")
	p.Address()
	before := p.Upkeep()
	u := apply(t, load(p, 8, 0))
	u.until(&u.answered, 200)
	p.Signal(syscall.SIGHUP)
	said := func(n int, msg string) map[string]any {
		t.Helper()
		p.Until(msg, 2*time.Minute, func() bool { return p.Nth(n, msg) != nil })
		return p.Nth(n, msg)
	}
	said(1, "reloaded")
	p.Signal(syscall.SIGTTOU)
	if r := said(1, "number of workers changed"); r["workers"] != float64(workers-1) {
		t.Errorf("%v", r)
	}
	said(2, "generation has drained")
	after := p.Upkeep()
	loseNothing(t, u)
	if after.Descriptors > before.Descriptors {
		t.Errorf("the master has %d descriptors, before it had %d", after.Descriptors, before.Descriptors)
	}
	each := func(n int) float64 { return float64(n) / float64(workers) }
	cpu := int(program.CPUTime(p.PID()).Milliseconds())
	t.Logf("the master of %d workers: %.1f KiB, %.2f descriptors and %.2f ms of a CPU for each, for %d starts",
		workers, each(after.Resident), each(after.Descriptors), each(cpu), 3*workers)
	p.Stop()
}
