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

	"github.com/gopherpack/gopherpack/affinity"
)

// allowed returns the CPUs of the test, and skips it if there are fewer than n.
func allowed(t *testing.T, n int) affinity.Set {
	t.Helper()
	s, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() < n {
		t.Skipf("needs %d CPUs, has %q", n, s)
	}
	return s
}

// masks returns the CPU masks that the threads of a process have.
func masks(t *testing.T, pid int) map[string]bool {
	t.Helper()
	threads, err := affinity.Threads(pid)
	if err != nil {
		t.Error(err)
	}
	found := map[string]bool{}
	for _, th := range threads {
		found[th.Mask.String()] = true
	}
	return found
}

// TestWithoutSys has a pack run where /sys is not mounted, as in some sandboxes. The CPUs are known all the same.
func TestWithoutSys(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("hiding /sys needs CAP_SYS_ADMIN")
	}
	t.Parallel()
	p := start(t, "http", func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		inShell(c, "mount --make-rprivate / && mount -t tmpfs none /sys")
	})
	if up := p.Logged(1, "pack is up"); up["cpus"] == nil {
		t.Errorf("the workers are not pinned: %v", up)
	}
	if r := load(p, 4, 5).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.Stop()
}

// TestWithoutProc has a pack run where /proc is not mounted, as in many a chroot. All works but upgrades, and the log
// says why.
func TestWithoutProc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("hiding /proc needs CAP_SYS_ADMIN")
	}
	t.Parallel()
	p := start(t, "http", func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		inShell(c, "mount --make-rprivate / && mount -t tmpfs none /proc")
	}, "-workers=2")
	p.Addresses()
	u := apply(t, load(p, 4, 0))
	u.until(&u.answered, 20)
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloaded")
	p.Signal(syscall.SIGUSR2)
	failed := p.Logged(1, "upgrade failed, the old workers go on")
	if !strings.Contains(fmt.Sprint(failed["error"]), "(is /proc mounted?)") {
		t.Errorf("%v", failed)
	}
	loseNothing(t, u)
	p.HasWorkers(2)
	p.Stop()
}

func TestEveryThreadIsPinned(t *testing.T) {
	t.Parallel()
	cpus := allowed(t, 1)
	p := start(t, "http", nil, "-singlep")
	r := load(p, 32, 50).Run(t.Context())
	if r.Failed() > 0 {
		t.Errorf("%v", r)
	}
	pids, said := answers(t, r)
	if len(pids) != cpus.Len() {
		t.Errorf("%d workers answered, on %q", len(pids), cpus)
	}
	i := 0
	for cpu := range cpus.All() {
		pid := pids[i]
		if got := masks(t, pid); len(got) != 1 || !got[fmt.Sprint(cpu)] {
			t.Errorf("worker %d: threads have the masks %v, want %d", i, got, cpu)
		}
		if want := fmt.Sprintf("id=%d pid=%d cpu=%d pinned=true procs=1", i, pid, cpu); r.Bodies[want] == 0 {
			t.Errorf("worker %d does not say %q; said: %q", i, want, said)
		}
		i++
	}
	if got := masks(t, p.PID()); len(got) != 1 || !got[cpus.String()] {
		t.Errorf("threads of the master have the masks %v, want %q", got, cpus)
	}
	p.Stop()
}

// TestStaysInTheMaskItWasGiven is taskset -c with the last CPU.
func TestStaysInTheMaskItWasGiven(t *testing.T) {
	t.Parallel()
	last := -1
	for last = range allowed(t, 2).All() {
	}
	p := &running{}
	err := affinity.Do(affinity.Of(last), func() error {
		p = start(t, "http", func(c *exec.Cmd) { c.Env = append(c.Env, "GOMAXPROCS=8") }, "-workers=3", "-singlep")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	pids, said := answers(t, load(p, 30, 10).Run(t.Context()))
	if len(pids) != 3 {
		t.Errorf("%d of 3 workers answered", len(pids))
	}
	for _, pid := range append(p.Workers(), p.PID()) {
		if got := masks(t, pid); len(got) != 1 || !got[fmt.Sprint(last)] {
			t.Errorf("process %d: masks %v, want %d alone", pid, got, last)
		}
	}
	for _, text := range said {
		if !strings.HasSuffix(text, "procs=1") {
			t.Errorf("a worker has more than one processor: %s", text)
		}
	}
	p.Stop()
}

// TestHog has a request compute for long: others must not wait until Go stops it for them. So its worker has a second P
// for that time.
func TestHog(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=1")
	becomes := func(procs string) {
		t.Helper()
		p.Until("a worker with "+procs, inTime, func() bool { return strings.HasSuffix(get(t, p, "/"), procs) })
	}
	becomes("procs=1")
	_, hog := occupy(t, p, "/spin")
	becomes("procs=2")
	hog.Close()
	becomes("procs=1")
	p.Stop()
}

func TestPlacementPerNode(t *testing.T) {
	t.Parallel()
	cpus := allowed(t, 2)
	sets, err := affinity.Spread(0, affinity.PerNode)
	if err != nil || len(sets) != 1 {
		t.Skipf("needs a machine with one node: %v, %v", sets, err)
	}
	p := start(t, "http", nil, "-placement=node")
	r := load(p, 4, 10).Run(t.Context())
	pids, said := answers(t, r)
	if len(pids) != 1 || !strings.HasSuffix(said[0], fmt.Sprintf("procs=%d", cpus.Len())) {
		t.Errorf("%q; want one worker with all CPUs", said)
	}
	if got := masks(t, pids[0]); len(got) != 1 || !got[cpus.String()] {
		t.Errorf("masks %v, want %q", got, cpus)
	}
	p.Stop()
}

func TestWorkersEnvironment(t *testing.T) {
	t.Parallel()
	p := start(t, "http", func(c *exec.Cmd) { c.Env = append(c.Env, "GOPHERPACK_WORKERS=1", "GOPHERPACK_CPUS=0") })
	// Of what tells a worker who it is, programs that it starts get nothing.
	if got, want := get(t, p, "/env"), "GOPHERPACK_WORKERS=1\nGOPHERPACK_CPUS=0\n"; got != want {
		t.Errorf("the environment has %q; want %q", got, want)
	}
	if n := len(p.Workers()); n != 1 {
		t.Errorf("%d workers, want 1 by the environment", n)
	}
	p.Stop()
}

// TestQuotaOfAnAncestor runs a pack in a control group whose parent may use half a CPU.
func TestQuotaOfAnAncestor(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("making control groups takes root")
	}
	allowed(t, 2)
	procs, _ := limitedGroup(t)
	p := start(t, "http", func(c *exec.Cmd) {
		inShell(c, "echo $$ >"+procs)
	})
	up := p.Logged(1, "pack is up")
	if up["workers"] != 1.0 || !strings.HasPrefix(fmt.Sprint(up["unpinned"]), "the processor quota is 0.5 of ") {
		t.Errorf("%v; want one worker, not pinned", up)
	}
	if _, said := answers(t, load(p, 1, 1).Run(t.Context())); !strings.HasSuffix(said[0], "pinned=false procs=1") {
		t.Errorf("%q", said)
	}
	p.Stop()
}

// TestQuotaChanges gives a pack all processor time, and half a CPU's again, while it runs, as a resize of a container
// does, under load.
func TestQuotaChanges(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("making control groups takes root")
	}
	cpus := allowed(t, 2)
	procs, limit := limitedGroup(t)
	p := start(t, "http", func(c *exec.Cmd) {
		inShell(c, "echo $$ >"+procs)
	})
	p.Addresses()
	p.HasWorkers(1)
	connecting := apply(t, load(p, 4, 0))
	for i, workers := range []int{cpus.Len(), 1} {
		limit(workers == 1)
		placed := p.Logged(i+1, "workers placed")
		if pinned := placed["unpinned"] == nil; pinned != (workers > 1) {
			t.Errorf("%v", placed)
		}
		p.HasWorkers(workers)
		p.hasSockets(workers)
	}
	loseLittle(t, connecting)
	p.Stop()
}

// limitedGroup makes a control group whose parent has a quota of half a CPU. It returns its file of processes, and what
// takes the quota away, or sets it.
func limitedGroup(t *testing.T) (procs string, limit func(bool)) {
	t.Helper()
	var errs []error
	for _, v := range []struct{ root, file, limit, none string }{
		{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "50000", "-1"},
		{"/sys/fs/cgroup", "cpu.max", "50000 100000", "max 100000"},
	} {
		parent := fmt.Sprintf("%s/gopherpack-test-%d-%s", v.root, os.Getpid(), t.Name())
		group := parent + "/sub"
		err := makeGroup(t, parent)
		if err == nil {
			err = makeGroup(t, group)
		}
		if err == nil {
			err = setGroup(parent, v.file, v.limit)
		}
		if err == nil {
			return group + "/cgroup.procs", func(on bool) {
				text := v.none
				if on {
					text = v.limit
				}
				if err := setGroup(parent, v.file, text); err != nil {
					t.Fatal(err)
				}
			}
		}
		errs = append(errs, err)
	}
	t.Skip(errors.Join(errs...))
	return "", nil
}

// TestCPUsChange takes the master a CPU and gives it back, as an update of a container does, under load.
func TestCPUsChange(t *testing.T) {
	t.Parallel()
	all, err := affinity.Allowed(0)
	if err != nil {
		t.Fatal(err)
	}
	if all.Len() < 2 {
		t.Skip("there is one CPU")
	}
	p := start(t, "http", nil)
	p.Addresses()
	connecting := apply(t, load(p, 8, 0))
	first, _ := all.First()
	for i, cpus := range []affinity.Set{affinity.Of(first), all} {
		if err := affinity.Process(p.PID(), cpus); err != nil {
			t.Fatal(err)
		}
		p.Logged(i+1, "workers placed")
		p.HasWorkers(cpus.Len())
		p.hasSockets(cpus.Len())
	}
	loseLittle(t, connecting)
	p.Stop()
}
