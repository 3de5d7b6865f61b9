//go:build linux

package pack_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/acceptlog"
)

// TestMasterKilled wants workers to finish what they have and to end when the master is killed.
func TestMasterKilled(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil)
	slow := load(p, 20, 1)
	slow.Path = "/slow"
	u := apply(t, slow)
	u.until(&u.sent, 20)
	p.Signal(syscall.SIGKILL)
	p.Wait(inTime)
	if r := u.finish(); r.Requests != 20 {
		t.Errorf("%v; want the workers to answer", r)
	}
	p.NoneLeft()
}

// TestMasterKilledBesideStopped kills the master while a worker is stopped. The kernel continues it then, since its
// process group has become orphaned (setpgid(2)), if the master was in a session of its own, as every service is.
func TestMasterKilledBesideStopped(t *testing.T) {
	t.Parallel()
	p := start(t, "http", func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }, "-workers=2")
	p.Addresses()
	freeze(t, p.Workers()[0])
	p.Signal(syscall.SIGKILL)
	p.Wait(inTime)
	p.NoneLeft()
}

// TestMasterKilledBesideHung kills the master, and the workers' own hooks do not let them end.
func TestMasterKilledBesideHung(t *testing.T) {
	t.Parallel()
	p := start(t, "hooks", nil, "-workers=2", "-hold=/", "-shutdown=1s")
	p.Addresses()
	p.Signal(syscall.SIGKILL)
	p.Wait(inTime)
	p.NoneLeft()
	p.WaitSilent()
	if n := p.Count("the master is gone, and this worker has not ended in time: exiting"); n != 2 {
		t.Errorf("%d workers said that they exit", n)
	}
}

// freeze stops a process and waits until every thread of it has stopped.
func freeze(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		running := slices.ContainsFunc(threads, func(name string) bool {
			text, err := os.ReadFile(name)
			return err == nil && !strings.Contains(string(text), ") T ")
		})
		if len(threads) > 0 && !running {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// TestKilledWorkerLosesNoQueuedConnection stops a worker, so that connections queue on its socket, then kills it.
func TestKilledWorkerLosesNoQueuedConnection(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2")
	p.Address()
	victim := p.Workers()[0]
	freeze(t, victim)
	const clients = 60
	u := apply(t, load(p, clients, 1))
	u.until(&u.sent, clients) // some wait in the queue of the stopped worker
	syscall.Kill(victim, syscall.SIGKILL)
	if r := <-u.result; r.Requests != clients || r.Failed() != 0 {
		t.Errorf("%v; want all %d answered, by the replacement", r, clients)
	}
	if failed := p.Logged(1, "worker failed"); failed["error"] != "signal: killed" || failed["next"] != 0.0 {
		t.Errorf("%v", failed)
	}
	p.Stop()
}

// TestKilledWorkerUnderLoad kills workers under load. Only connections that the dead worker had accepted may fail.
func TestKilledWorkerUnderLoad(t *testing.T) {
	t.Parallel()
	accepts := t.TempDir() + "/accepts"
	if err := os.WriteFile(accepts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "http", nil, "-accepts="+accepts)
	u := apply(t, load(p, 16, 0))
	u.until(&u.answered, 100)
	const kills = 8
	dead := map[int]bool{}
	for i := range kills {
		pids := p.Workers()
		pid := pids[i%len(pids)]
		dead[pid] = true
		syscall.Kill(pid, syscall.SIGKILL)
		p.Logged(i+1, "worker ready")
	}
	r := u.finish()
	p.Stop()
	log, err := acceptlog.Read(accepts)
	if err != nil {
		t.Fatal(err)
	}
	unlogged := 0
	for _, f := range r.Samples {
		who := log.By(f)
		switch {
		case len(who) == 0:
			unlogged++ // killed between accept and the log: at most one a kill, since one accepts at a time
		case !slices.ContainsFunc(who, func(pid int) bool { return dead[pid] }):
			t.Errorf("%s: %v, sent at %v, but it was accepted by %v, which lived", f.Kind, f.Err, f.Sent, who)
		}
	}
	if unlogged > kills {
		t.Errorf("%d failed connections were accepted by nobody, in %d kills: %v", unlogged, kills, r)
	}
	t.Logf("%v; %d of the failures not logged as accepted", r, unlogged)
}

// TestManyCrashes has workers end faster than they can start, and wants the pack to stay calm.
func TestManyCrashes(t *testing.T) {
	t.Parallel()
	p := start(t, "broken", nil, "-workers=2", "-how=exit in worker 1")
	p.Logged(4, "worker failed") // the others in about 250 ms, 500 ms
	if n := p.Count("pack is up"); n != 0 {
		t.Error("it says it is up")
	}
	p.Signal(syscall.SIGTERM)
	if status := p.Wait(inTime); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestServeFails has the server of a worker fail while it still has a request that takes long. Others serve meanwhile.
func TestServeFails(t *testing.T) {
	t.Parallel()
	p := start(t, "broken", nil, "-workers=2", "-how=serve fails later", "-shutdown=1h")
	p.Logged(1, "pack is up")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var tearing *http.Response
	for status := 0; status != http.StatusAccepted; { // until one comes to worker 0
		response, err := client.Get("http://" + p.Address() + "/tear")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		tearing, status = response, response.StatusCode
	}
	u := apply(t, load(p, 4, 100))
	if r := <-u.result; r.Failed() > 0 || p.Count("worker failed") > 0 {
		t.Errorf("%v; %d workers have ended", r, p.Count("worker failed"))
	}
	tearing.Body.Close()
	if failed := p.Logged(1, "worker failed"); !strings.Contains(fmt.Sprint(failed["error"]), "no more tape") {
		t.Errorf("%v", failed)
	}
	p.Logged(1, "worker ready")
	p.Stop()
}
