package proc_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/proc"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

// asForeigner makes the test binary a program that tells of process 1.
const asForeigner = "PROC_TEST_FOREIGNER"

func TestMain(m *testing.M) {
	if os.Getenv(asForeigner) != "" {
		fmt.Print(known(1))
		return
	}
	leaktest.Main(m)
}

// known says what is known of a process.
func known(pid int) string {
	return fmt.Sprint(proc.Resident(pid) > 0, " ", proc.ReadTimes(pid) != proc.Times{})
}

// TestForeignProc has a process look whose /proc is that of another PID namespace, in which process 1 is another.
func TestForeignProc(t *testing.T) {
	for flags, want := range map[uintptr]string{0: known(1), syscall.CLONE_NEWPID: "false false"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), asForeigner+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		out, err := cmd.Output()
		if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EINVAL) { // the latter where it is emulated
			t.Skip(err)
		}
		if err != nil || string(out) != want {
			t.Errorf("with flags %#x: %q, %v; want %q", flags, out, err, want)
		}
	}
}

// start starts a shell script that ends with the test.
func start(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// eventually fails the test if something does not come to be.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not so within 10 s: ", what)
		}
	}
}

func TestState(t *testing.T) {
	pid := start(t, "while :; do sleep 1; done").Process.Pid
	if s := proc.State(pid); s != "" {
		t.Errorf("%q of a process that goes on", s)
	}
	syscall.Kill(pid, syscall.SIGSTOP)
	eventually(t, "it is stopped", func() bool { return proc.State(pid) == "stopped" })
	syscall.Kill(pid, syscall.SIGCONT)
	eventually(t, "it goes on", func() bool { return proc.State(pid) == "" })
	if s := proc.State(1 << 30); s != "" {
		t.Errorf("%q of no process", s)
	}
}

func TestResident(t *testing.T) {
	before := proc.Resident(os.Getpid())
	block, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(block)
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
	if after := proc.Resident(os.Getpid()); after < before+32<<20 { // the runtime may give some back meanwhile
		t.Errorf("%d bytes, and %d with %d more", before, after, len(block))
	}
	if n := proc.Resident(1 << 30); n != 0 {
		t.Errorf("%d of no process", n)
	}
}

// TestTimes has two processes want the same CPU, and one that sleeps.
func TestTimes(t *testing.T) {
	allowed, err := affinity.Allowed(0)
	if err != nil {
		t.Fatal(err)
	}
	cpu, _ := allowed.First()
	rivals := make([]int, 2)
	err = affinity.Do(affinity.Of(cpu), func() error {
		for i := range rivals {
			rivals[i] = start(t, "while :; do :; done").Process.Pid
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range rivals {
		eventually(t, "it has run and waited", func() bool {
			times := proc.ReadTimes(pid)
			return times.Runnable && times.Ran > 20*time.Millisecond && times.Waited > 20*time.Millisecond
		})
	}
	sleeps := start(t, "sleep 100; :").Process.Pid
	eventually(t, "it sleeps", func() bool { return !proc.ReadTimes(sleeps).Runnable })
	if times := proc.ReadTimes(1 << 30); times != (proc.Times{}) {
		t.Errorf("%v of no process", times)
	}
}

func TestStarvedSince(t *testing.T) {
	const s = time.Second
	before := proc.Times{Ran: 5 * s, Waited: 3 * s}
	for _, test := range []struct {
		now  proc.Times
		want bool
	}{
		{before, false}, // it sleeps
		{proc.Times{Ran: 6 * s, Waited: 3 * s, Runnable: true}, false}, // it computes
		{proc.Times{Ran: 5*s + s/4, Waited: 4 * s}, true},              // it came to run after a long while
		{proc.Times{Ran: 5 * s, Waited: 3 * s, Runnable: true}, true},  // it waits still
		{proc.Times{Ran: 5*s + s/4, Waited: 3*s + s/4}, false},         // it does little
		{proc.Times{Ran: 8 * s, Waited: 3*s + s/4, Runnable: true}, false},
	} {
		if got := test.now.StarvedSince(before, s); got != test.want {
			t.Errorf("%+v: %v", test.now, got)
		}
	}
}

// TestReap is a subreaper that inherits two orphans, one of which is spared.
func TestReap(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err == unix.EINVAL {
		t.Skip("prctl PR_SET_CHILD_SUBREAPER: ", err) // an emulator's
	} else if err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	if !proc.InheritsOrphans() {
		t.Fatal("a subreaper does not inherit orphans")
	}
	mine := start(t, "exit 7") // which its cleanup waits for
	out, err := exec.Command("/bin/sh", "-c", "(sleep 0.1; exit 3) >/dev/null & echo $!; (sleep 0.1; exit 4) >/dev/null & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	var orphans []int
	for word := range strings.FieldsSeq(string(out)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		orphans = append(orphans, pid)
	}
	spared := orphans[1]
	status := map[int]int{}
	var r proc.Reaper
	eventually(t, "the orphan is reaped", func() bool {
		for _, p := range r.Reap(func(pid int) bool { return pid == mine.Process.Pid || pid == spared }) {
			status[p.PID] = unix.WaitStatus(p.Status).ExitStatus()
		}
		return len(status) > 0
	})
	if len(status) != 1 || status[orphans[0]] != 3 {
		t.Errorf("reaped %v; want process %d with exit status 3", status, orphans[0])
	}
	if len(r.Reap(func(int) bool { return true })) > 0 {
		t.Error("reaped what was to be spared")
	}
	clear(status)
	eventually(t, "the other is reaped", func() bool {
		for _, p := range r.Reap(func(pid int) bool { return pid == mine.Process.Pid }) {
			status[p.PID] = unix.WaitStatus(p.Status).ExitStatus()
		}
		return len(status) > 0
	})
	if len(status) != 1 || status[spared] != 4 {
		t.Errorf("reaped %v; want process %d with exit status 4", status, spared)
	}
}

// TestReapIsPatient leaves what has just ended to whoever started it.
func TestReapIsPatient(t *testing.T) {
	cmd := start(t, "exit 5")
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	var r proc.Reaper
	if all := r.Reap(func(int) bool { return false }); len(all) > 0 {
		t.Errorf("reaped %v at the first look", all)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "exit status 5" {
		t.Errorf("%v; want exit status 5", err)
	}
}
