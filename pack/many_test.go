//go:build linux

package pack_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
)

// TestManyWorkers has a pack of many workers start, be reloaded, become one fewer, and stop, under load. It tells what the master
// costs for each.
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
	t.Logf("the master of %d workers: %.1f KiB, %.2f descriptors and %.2f ms of a CPU for each, for %d starts",
		workers, each(after.Resident), each(after.Descriptors), 10*each(cpuTicks(t, p.PID())), 3*workers)
	p.Stop()
}

// cpuTicks returns how many hundredths of a second of a CPU a process has had, proc_pid_stat(5).
func cpuTicks(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	user, _ := strconv.Atoi(string(fields[11]))
	system, _ := strconv.Atoi(string(fields[12]))
	return user + system
}
