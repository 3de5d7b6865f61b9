//go:build linux

package pack_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/pack"
)

// upgradeFailed is what the master says when an upgrade did not come to another program, or went back from it.
var upgradeFailed = []string{
	"upgrade failed, the old workers go on",
	"upgrade failed, the old executable and workers go on",
}

// TestBadExecutables tries to upgrade to executables that are no good in various ways. The old one must go on, nobody
// who retries nothing may notice, and the log must say why. By default it tries three: one is no good by itself, one as
// a worker, and one when it takes over.
func TestBadExecutables(t *testing.T) {
	t.Parallel()
	for _, tt := range test.Some(3, []struct{ how, want string }{
		{"exits", "the new executable did not come as far as Run: it ended before it answered: exit status 3"},
		{"panics", "a worker failed before it was ready: exit status 2"},
		{"bad successor", "OnStart: cannot start the scheduler"},
		{"hangs", "the new executable did not come as far as Run: no answer within 2s"},
		{"no pack", "it ended with exit status 0 before it answered"},
		{"killed in preflight", "the new executable did not come as far as Run: it ended before it answered: signal: killed"},
		{"bad configuration", "the new executable will not be the master: the number of workers is negative: -1"},
		{"sleeps in workers", "a worker failed before it was ready: killed: not ready within 2s"},
		{"crashes after ready", "a new worker failed within 2s of being ready: exit status 5"},
		{"wrong when it takes over", "the number of workers is negative: -1"},
		{"text", "exec format error"},
		{"other architecture", "exec format error"},
		{"missing", "server: no such file or directory"},
		{"a directory", "is not a regular file"},
		{"may not be executed", "may not be executed: its mode is -rw-r--r--"},
		{"replaced twice", "the new executable did not come as far as Run: it ended before it answered: exit status 3"},
		{"a script without a pack", "it ended with exit status 0 before it answered"},
		{"a script that does not exec", "the new executable will not be the master: a script, or another program, has started"},
	}) {
		t.Run(tt.how, func(t *testing.T) {
			t.Parallel()
			args := []string{"-minready=2s"}
			if strings.Contains(tt.want, "within 2s") {
				args = append(args, "-ready=2s")
			}
			p, path := startVersion(t, nil, args...)
			p.goesBack(t, path, tt.how, tt.want, 2, nil)
		})
	}
}

// goesBack upgrades to an executable that is no good, as how says, which must fail with some error, and then to a good
// one. Under load, nobody may notice. In between it calls then, if there is one; at the end it stops the pack.
func (p *running) goesBack(t *testing.T, path, how, want string, workers int, then func()) {
	t.Helper()
	keeping, connecting := applyBoth(t, p, 4)
	if how == "crashes after ready" { // it takes along what it has accepted
		connecting.finish()
	} else {
		connecting.until(&connecting.answered, 20)
	}
	keeping.until(&keeping.answered, 20)
	deployBad(t, path, how)
	p.Signal(syscall.SIGUSR2)
	failed := p.Logged(1, upgradeFailed...)
	if !strings.Contains(fmt.Sprint(failed["error"]), want) {
		t.Errorf("%v; want an error about %q", failed, want)
	}
	p.HasWorkers(workers)
	p.answersVersion("1")
	if then != nil {
		then()
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	deploy(t, path, "3")
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	p.HasWorkers(workers)
	p.answersVersion("3")
	loads := []*underLoad{keeping, connecting}
	if how == "crashes after ready" {
		loads = loads[:1]
	}
	loseNothing(t, loads...)
	p.IsParent()
	p.Stop()
}

// deployBad puts something in the place of the executable at path.
func deployBad(t *testing.T, path, how string) {
	t.Helper()
	switch how {
	case "missing", "a directory":
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if how == "a directory" {
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	case "may not be executed":
		deploy(t, path, "bad")
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	case "replaced twice":
		deploy(t, path, "good")
		deploy(t, path, "bad", "exits")
	case "a script that does not exec":
		deploy(t, path+".bin", "bad")
		place(t, path, []byte("#!/bin/sh\n"+path+".bin \"$@\"\n"))
	case "a script without a pack":
		place(t, path, []byte("#!/bin/sh\nexit 0\n"))
	default:
		deploy(t, path, "bad", how)
	}
}

// TestUpgradeThatUserMayNotExecute upgrades to an executable that the master may execute, and its workers may not.
func TestUpgradeThatUserMayNotExecute(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("workers of another user take root")
	}
	p, path := startVersion(t, nil, "-user=4711:4712")
	deploy(t, path, "2")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGUSR2)
	want := `the new executable will not be the master: user "4711:4712" may not execute ` + path
	if failed := p.Logged(1, upgradeFailed...); !strings.Contains(fmt.Sprint(failed["error"]), want) {
		t.Errorf("%v; want an error about %q", failed, want)
	}
	p.answersVersion("1")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	p.HasWorkers(2)
	p.answersVersion("2")
	p.Stop()
}

// TestWorkerOfScript has a master start its workers by a script that waits for them: no second pack begins in the place
// of a worker.
func TestWorkerOfScript(t *testing.T) {
	t.Parallel()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	p := start(t, "http", func(c *exec.Cmd) {
		c.Args = append([]string{"sh", "-c", `"$0" "$@"; exit $?`, c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
		c.ExtraFiles = []*os.File{theirs}
		c.Env = append(c.Env, "GOPHERPACK_IDENTITY=id=0 generation=1", fmt.Sprint("PROCGROUP_LIFELINE=3,", os.Getpid()))
	})
	theirs.Close()
	const want = "pack: a script, or another program, has started it and waits for it"
	if status := p.Wait(inTime); status != 1 || !p.Said(want) || p.Count("pack is up") > 0 {
		t.Errorf("exit status %d; want 1, and %q:\n%s", status, want, p.Text())
	}
}

// TestExecFails has the kernel refuse, in the last moment, to make another program of the master.
func TestExecFails(t *testing.T) {
	t.Parallel()
	p, path := startVersion(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PACK_TEST_FAIL_EXEC=3") })
	deploy(t, path, "2")
	keeping, connecting := applyBoth(t, p, 4)
	before := p.Upkeep()
	for i := range 3 {
		p.Signal(syscall.SIGUSR2)
		failed := p.Logged(i+1, "upgrade failed, the old workers go on")
		if failed["error"] != "no memory for another program" {
			t.Errorf("%v", failed)
		}
		p.HasWorkers(2)
		p.IsParent()
	}
	p.answersVersion("1")
	// What the master needs to look at workers comes and goes.
	if !p.Await(10*time.Second, func() bool { return p.Upkeep().Descriptors <= before.Descriptors }) {
		t.Errorf("before %+v, after %+v", before, p.Upkeep())
	}
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloaded")
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	p.HasWorkers(2)
	p.answersVersion("2")
	loseNothing(t, keeping, connecting)
	p.Stop()
}

// TestUnknownVersions has the program asked, and passed on to, by a master of another version.
func TestUnknownVersions(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/asks"
	deploy(t, path, "0", "asks")
	for question, want := range map[string]string{
		`{"version":99,"protocol":2}`: "it takes over a state of version 2, and this is version 99",
		`{"version":2,"protocol":99}`: "it speaks version 2 of the protocol with workers, and these speak 99",
	} {
		cmd := exec.Command(path, "-successor="+os.Args[0], "-state="+question)
		cmd.Env = append(os.Environ(), asProgram+"=versioned", "GORACE=atexit_sleep_ms=0")
		if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %q; want %q", question, err, out, want)
		}
	}
	// One that takes over what it does not understand becomes its predecessor again.
	deploy(t, path, "0", "passes on")
	for state, want := range map[string]string{
		`{"version":99}`: "it is of version 99, and this program knows version 2",
		`{`:              "unexpected end of JSON input",
		`{"version":2}`:  "there is no generation 0",
	} {
		cmd := exec.Command(path, "-successor="+os.Args[0], "-state="+state)
		cmd.Env = append(os.Environ(), asProgram+"=versioned", "GORACE=atexit_sleep_ms=0")
		want = "handed back: the state of the predecessor: " + want
		if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %q; want %q", state, err, out, want)
		}
	}
}

// TestOnUpgrade has the hook call an upgrade off.
func TestOnUpgrade(t *testing.T) {
	t.Parallel()
	p, path := startVersion(t, nil)
	deploy(t, path, "2", "does not want to go")
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	p.Signal(syscall.SIGUSR2)
	failed := p.Logged(1, "upgrade failed, the old workers go on")
	if failed["error"] != "OnUpgrade: not before Friday" {
		t.Errorf("%v", failed)
	}
	p.HasWorkers(2)
	p.answersVersion("2")
	p.Stop()
	err := pack.New(pack.Config{}).Upgrade(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not run a pack") {
		t.Errorf("outside a running pack: %v", err)
	}
}
