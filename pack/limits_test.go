//go:build linux

package pack_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// controlGroup makes a control group with limits: files and what to write to them, which may be those of version 1 that
// are there already, too. It returns what changes a limit, and what has a program start in the group.
func controlGroup(t *testing.T, controller string, limits ...string) (set func(file, text string), in func(*exec.Cmd)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making control groups takes root")
	}
	var errs []error
	for _, root := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
		group := fmt.Sprintf("%s/gopherpack-test-%d-%s", root, os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
		err := makeGroup(t, group)
		for i := 0; err == nil && i < len(limits); i += 2 {
			err = setGroup(group, limits[i], limits[i+1])
		}
		if err == nil {
			set = func(file, text string) {
				t.Helper()
				if err := setGroup(group, file, text); err != nil {
					t.Fatal(err)
				}
			}
			return set, func(c *exec.Cmd) { inShell(c, "echo $$ >"+group+"/cgroup.procs") }
		}
		errs = append(errs, err)
	}
	t.Skip(errors.Join(errs...))
	return nil, nil
}

// TestCPUSetChanges takes a CPU from a container, and gives it back, under load: the kernel moves whoever was pinned to
// it at once, and the pack is placed anew.
func TestCPUSetChanges(t *testing.T) {
	t.Parallel()
	cpus := allowed(t, 2)
	first, _ := cpus.First()
	set, in := controlGroup(t, "cpuset", "cpuset.cpus", cpus.String(), "cpuset.mems", "0")
	p := start(t, "http", in)
	p.HasWorkers(cpus.Len())
	connecting := apply(t, load(p, 4, 0))
	for i, now := range []string{fmt.Sprint(first), cpus.String()} {
		set("cpuset.cpus", now)
		placed := p.Logged(i+1, "workers placed")
		if placed["unpinned"] != nil {
			t.Errorf("%v", placed)
		}
		p.HasWorkers([]int{1, cpus.Len()}[i])
	}
	loseLittle(t, connecting)
	p.Stop()
}

// TestFewProcesses has a container's limit of processes, to which threads count, leave no room for new workers: a reload
// fails, the old ones go on, and the log says why.
func TestFewProcesses(t *testing.T) {
	t.Parallel()
	set, in := controlGroup(t, "pids", "pids.max", "200")
	p := start(t, "http", in, "-workers=2")
	p.HasWorkers(2)
	before := p.Workers()
	connecting := apply(t, load(p, 4, 0))
	connecting.until(&connecting.answered, 100)
	set("pids.max", "3")
	p.Signal(syscall.SIGHUP)
	failed := p.Logged(1, "reload failed, the old workers go on")
	if text := fmt.Sprint(failed["error"]); !strings.Contains(text, "raise pids.max") {
		t.Errorf("%q does not say what to do", text)
	}
	set("pids.max", "200")
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloaded")
	p.Replaced(before, 2)
	loseNothing(t, connecting)
	p.Stop()
}
