//go:build linux

package pack_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// TestStarved has the control group of a worker allow it a thousandth of a CPU, in one piece each second: for most of
// the time it is silent, for longer than the timeout, and must not be taken for hung.
func TestStarved(t *testing.T) {
	t.Parallel()
	for _, workers := range []string{"1", "2"} {
		p := start(t, "http", nil, "-workers="+workers, "-hangtimeout=600ms") // which has a probe that may be late, too
		p.Addresses()
		before := p.Workers()
		free := throttle(t, before[0])
		p.Logged(1, "worker hangs, but waits for a CPU: leaving it alone")
		free()
		p.Logged(1, "worker goes on")
		get(t, p, "/")
		if n := p.Count("worker hangs, killing it"); n != 0 || !slices.Equal(p.Workers(), before) {
			t.Errorf("of %v are left %v; %d lines say that one hangs", before, p.Workers(), n)
		}
		p.Stop()
	}
}

// throttle has a process run for a millisecond in each second, until free is called.
func throttle(t *testing.T, pid int) (free func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a control group needs root")
	}
	var errs []error
	set := func(group, file, text string) { errs = append(errs, setGroup(group, file, text)) }
	root := "/sys/fs/cgroup/cpu" // of version 1
	second := false
	if _, err := os.Stat(root); err != nil {
		root, second = "/sys/fs/cgroup", true
		set(root, "cgroup.subtree_control", "+cpu")
	}
	group := filepath.Join(root, "gopherpack-test"+strconv.Itoa(pid))
	errs = append(errs, makeGroup(t, group))
	if second {
		set(group, "cpu.max", "1000 1000000")
	} else {
		set(group, "cpu.cfs_period_us", "1000000")
		set(group, "cpu.cfs_quota_us", "1000")
	}
	set(group, "cgroup.procs", strconv.Itoa(pid))
	if err := errors.Join(errs...); err != nil {
		t.Skipf("control groups do not limit processor time here: %v", err)
	}
	free = sync.OnceFunc(func() {
		if err := setGroup(root, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(free)
	return free
}
