//go:build linux

package pack_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// TestKillDuringUpgrade kills some process at a step of an upgrade: an old worker, a new one, the master; or each at
// each step.
func TestKillDuringUpgrade(t *testing.T) {
	t.Parallel()
	type kill struct{ step, whom string }
	kills := []kill{{"exec", "0.1"}, {"ready", "1.2"}, {"takeOver", "master"}}
	for _, step := range []string{"preflight", "launched", "ready", "freeze", "exec", "takeOver", "adopted", "replaced"} {
		for _, whom := range []string{"0.1", "1.1", "0.2", "1.2", "master"} {
			if step == "preflight" && strings.HasSuffix(whom, ".2") {
				continue // it is not there yet
			}
			if k := (kill{step, whom}); !slices.Contains(kills, k) {
				kills = append(kills, k)
			}
		}
	}
	for _, k := range test.Some(3, kills) {
		t.Run(k.step+" "+k.whom, func(t *testing.T) {
			t.Parallel()
			killDuringUpgrade(t, k.step, k.whom, 2, "-minready=100ms")
		})
	}
}

// killDuringUpgrade kills one process at a step of an upgrade. Either version goes on then, and the next upgrade works.
func killDuringUpgrade(t *testing.T, step, whom string, workers int, args ...string) {
	t.Helper()
	p, path := startVersion(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "PACK_TEST_KILL=at "+step+" "+whom)
	}, append(args, "-workers="+strconv.Itoa(workers))...)
	deploy(t, path, "2")
	p.Signal(syscall.SIGUSR2)
	if whom == "master" {
		p.Wait(inTime)
		return // and nobody may be left, says the clean-up
	}
	version, upgrades := "1", 0
	if p.Logged(1, "upgraded", "upgrade failed, the old workers go on").Msg() == "upgraded" {
		version, upgrades = "2", 1
	}
	p.HasWorkers(workers)
	p.answersVersion(version)
	deploy(t, path, "3")
	p.Signal(syscall.SIGUSR2)
	p.Logged(upgrades+1, "upgraded")
	p.HasWorkers(workers)
	p.answersVersion("3")
	p.Stop()
}

// TestManyWishes asks for ten upgrades and ten reloads at once. Those that come while the first is in progress are one
// upgrade, which follows it.
func TestManyWishes(t *testing.T) {
	t.Parallel()
	p, path := startVersion(t, nil, "-minready=300ms")
	u := apply(t, load(p, 4, 0))
	deploy(t, path, "2")
	for range 10 {
		p.Signal(syscall.SIGUSR2)
		p.Signal(syscall.SIGHUP)
	}
	p.Logged(1, "upgrade will follow", "reload will follow")
	p.Logged(2, "upgraded", "reloaded")
	loseNothing(t, u)
	p.HasWorkers(2)
	p.answersVersion("2")
	p.Stop()
}

// TestChangesFollowEachOther asks for a reload during an upgrade, which is made afterwards, by the new program, and for
// an upgrade during a reload.
func TestChangesFollowEachOther(t *testing.T) {
	t.Parallel()
	p, path := startVersion(t, nil, "-minready=2s")
	deploy(t, path, "2")
	deploy(t, path+".3", "3") // takes longer than a reload may
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgrading")
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reload will follow")
	p.Logged(1, "upgraded")
	p.Logged(1, "reloading")
	if err := os.Rename(path+".3", path); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgrade will follow")
	p.Logged(1, "reloaded")
	p.Logged(2, "upgraded")
	p.HasWorkers(2)
	p.answersVersion("3")
	p.Stop()
}

// TestStopDuringUpgrade stops a pack at some moments, or many, of an upgrade. Nobody who retries nothing may be reset.
func TestStopDuringUpgrade(t *testing.T) {
	t.Parallel()
	for i := 0; i < 36; i += test.Times(7, 1) {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			p, path := startVersion(t, nil, "-minready=30ms", fmt.Sprintf("-rolling=%v", i%3 == 2))
			deploy(t, path, "2")
			u := apply(t, load(p, 2, 0))
			u.until(&u.answered, 10)
			p.Signal(syscall.SIGUSR2)
			time.Sleep(time.Duration(i) * 8 * time.Millisecond)
			p.stopsAmidUpgrade(u)
		})
	}
}

// TestStopAtStep has a pack told to stop at a step of an upgrade, such as in the new program before it knows of any
// worker: it ends when its workers have.
func TestStopAtStep(t *testing.T) {
	t.Parallel()
	for _, step := range test.Some(2, []string{"takeOver", "exec", "launched", "freeze", "adopted", "replaced"}) {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			p, path := startVersion(t, func(cmd *exec.Cmd) {
				cmd.Env = append(cmd.Env, "PACK_TEST_KILL=at "+step+" stop")
			}, "-minready=30ms")
			deploy(t, path, "2")
			u := apply(t, load(p, 2, 0))
			u.until(&u.answered, 10)
			p.Signal(syscall.SIGUSR2)
			stopping := p.Logged(1, "stopping")
			if status := p.Wait(program.Patience); status != 0 || stopping["workers"] == 0.0 {
				t.Errorf("exit status %d, stopping %v", status, stopping)
			}
			comeTooLate(t, u)
		})
	}
}

// stopsAmidUpgrade stops a pack in the middle of an upgrade, under load: nobody who retries nothing may be reset.
func (p *running) stopsAmidUpgrade(u *underLoad) {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.Wait(program.Patience)
	// While one program takes the place of the other, the signal ends the process at once; then the workers stop by
	// themselves.
	status := p.Cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.ExitStatus() != 0 && status.Signal() != syscall.SIGTERM {
		p.t.Error(p.Err())
	}
	p.WaitSilent()
	comeTooLate(u.t, u)
}
