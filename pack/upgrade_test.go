//go:build linux

package pack_test

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
)

// TestUpgradesCostNothing upgrades some times, or many, and looks at the master before and after.
func TestUpgradesCostNothing(t *testing.T) {
	t.Parallel()
	p, path := startVersion(t, nil)
	master := p.PID()
	upgrade := func(i int) {
		deploy(t, path, strconv.Itoa(i+1))
		p.Signal(syscall.SIGUSR2)
		if pid := p.Logged(i, "upgraded")["pid"]; pid != float64(master) {
			t.Errorf("the master is %v, was %d", pid, master)
		}
		p.Logged(i, "generation has drained")
		p.HasWorkers(2)
		p.IsParent()
	}
	upgrade(1)
	before := p.Upkeep()
	upgrades := test.Times(5, 21)
	for i := 2; i <= upgrades; i++ {
		upgrade(i)
	}
	after := p.Upkeep()
	// What the last upgrade, or a look at /proc, has open for a moment is no cost.
	p.Await(10*time.Second, func() bool {
		after = p.Upkeep()
		return after.Descriptors == before.Descriptors
	})
	t.Logf("after the first upgrade %+v, after %d %+v", before, upgrades, after)
	if after.Descriptors != before.Descriptors || after.Children != 2 || after.Threads > before.Threads+5 {
		t.Errorf("after the first upgrade %+v, after %d %+v", before, upgrades, after)
	}
	if after.Resident > before.Resident*3/2 {
		t.Errorf("memory has grown from %d to %d KiB", before.Resident, after.Resident)
	}
	p.answersVersion(strconv.Itoa(upgrades + 1))
	p.Stop()
}

// TestCrashAfterUpgrade kills a worker after an upgrade: the new master must start the new executable in its place.
func TestCrashAfterUpgrade(t *testing.T) {
	t.Parallel()
	p, path := startVersion(t, nil)
	deploy(t, path, "2")
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	p.HasWorkers(2)
	for i, pid := range p.Workers() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.Logged(i+1, "worker ready")
	}
	p.answersVersion("2")
	p.Stop()
}

// TestUpgradeOtherServices upgrades packs that serve other things than plaintext HTTP over TCP.
func TestUpgradeOtherServices(t *testing.T) {
	t.Parallel()
	t.Run("several", func(t *testing.T) {
		t.Parallel()
		p := start(t, "many", nil, "-address="+t.TempDir()+"/socket")
		before := p.Addresses()
		p.Signal(syscall.SIGUSR2)
		if after := p.ListeningOn("upgraded"); !slices.Equal(after, before) {
			t.Errorf("listening on %v, before on %v", after, before)
		}
		p.Stop()
	})
	t.Run("lazy", func(t *testing.T) {
		t.Parallel()
		p := start(t, "lazy", nil)
		before := p.Addresses()
		u := apply(t, load(p, 4, 0))
		p.changes(u, syscall.SIGUSR2, syscall.SIGUSR2, syscall.SIGUSR2)
		if after := p.ListeningOn("upgraded"); !slices.Equal(after, before) {
			t.Errorf("listening on %v, before on %v", after, before)
		}
		loseNothing(t, u)
		p.Stop()
	})
}

// TestUpgradeAsProcess1 upgrades the first process of a PID namespace, as in a container.
func TestUpgradeAsProcess1(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a PID namespace needs CAP_SYS_ADMIN")
	}
	p, path := startVersion(t, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	})
	if pid := p.Logged(1, "pack is up")["pid"]; pid != 1.0 {
		t.Fatalf("the master is process %v", pid)
	}
	u := apply(t, load(p, 4, 0))
	for i := range 3 {
		version := strconv.Itoa(i + 2)
		deploy(t, path, version)
		p.Signal(syscall.SIGUSR2)
		if pid := p.Logged(i+1, "upgraded")["pid"]; pid != 1.0 {
			t.Errorf("the master is process %v", pid)
		}
		p.HasWorkers(2)
		p.answersVersion(version)
	}
	loseNothing(t, u)
	p.Stop()
}

// TestDeployByLink turns a symbolic link to another version, with a relative path to the executable.
func TestDeployByLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, version := range []string{"1", "2"} {
		if err := os.Mkdir(dir+"/v"+version, 0o755); err != nil {
			t.Fatal(err)
		}
		deploy(t, dir+"/v"+version+"/server", version)
	}
	link := func(version string) {
		t.Helper()
		if err := os.Symlink("v"+version, dir+"/new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"/new", dir+"/current"); err != nil {
			t.Fatal(err)
		}
	}
	link("1")
	p := start(t, "versioned", func(cmd *exec.Cmd) {
		cmd.Dir, cmd.Path, cmd.Args[0] = dir, "current/server", "current/server"
	}, "-workers=2")
	p.Addresses()
	for i, version := range []string{"2", "1"} {
		link(version)
		p.Signal(syscall.SIGUSR2)
		p.Logged(i+1, "upgraded")
		p.HasWorkers(2)
		p.answersVersion(version)
	}
	p.Stop()
}
