//go:build linux

package pack_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
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
	const name = "gopherpack-test"
	var err error
	put := func(dir, file, text string) {
		if werr := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err == nil {
			err = werr
		}
	}
	root := "/sys/fs/cgroup/cpu" // of version 1
	second := false
	if _, serr := os.Stat(root); serr != nil {
		root, second = "/sys/fs/cgroup", true
		put(root, "cgroup.subtree_control", "+cpu")
	}
	group := filepath.Join(root, name+strconv.Itoa(pid))
	if merr := os.Mkdir(group, 0o755); err == nil {
		err = merr
	}
	if second {
		put(group, "cpu.max", "1000 1000000")
	} else {
		put(group, "cpu.cfs_period_us", "1000000")
		put(group, "cpu.cfs_quota_us", "1000")
	}
	put(group, "cgroup.procs", strconv.Itoa(pid))
	free = sync.OnceFunc(func() {
		put(root, "cgroup.procs", strconv.Itoa(pid))
		for deadline := time.Now().Add(5 * time.Second); os.Remove(group) != nil && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
	})
	t.Cleanup(free)
	if err != nil {
		t.Skipf("control groups do not limit processor time here: %v", err)
	}
	return free
}
