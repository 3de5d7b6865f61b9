package rlimit

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// withoutPrivilege calls f in a thread that may not raise hard limits, nor change those of other users.
func withoutPrivilege(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before, without [2]unix.CapUserData
	if err := unix.Capget(&header, &before[0]); err != nil {
		t.Fatal(err)
	}
	without = before
	without[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	if err := unix.Capset(&header, &without[0]); err != nil {
		t.Fatal(err)
	}
	f()
	if err := unix.Capset(&header, &before[0]); err != nil {
		t.Fatal(err)
	}
}

// TestRaiseUpToHard goes as far as the hard limit allows, and no error says that this is not enough.
func TestRaiseUpToHard(t *testing.T) {
	before, err := Get(CORE)
	if err != nil {
		t.Fatal(err)
	}
	defer Set(CORE, before)
	if err := Set(CORE, Limit{Soft: 0, Hard: min(before.Hard, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	withoutPrivilege(t, func() {
		want := Limit{Soft: min(before.Hard, 1<<20), Hard: min(before.Hard, 1<<20)}
		if l, err := Raise(CORE, 1<<30); !errors.Is(err, os.ErrPermission) || l.Soft != 0 {
			t.Errorf("Raise above the hard limit = %s, %v; want it unchanged, and no permission", l, err)
		}
		if l, err := RaiseUpTo(CORE, 1<<30); err != nil || l != want {
			t.Errorf("RaiseUpTo = %s, %v; want %s", l, err, want)
		}
		if l, err := Get(CORE); err != nil || l != want {
			t.Errorf("the limit is %s, %v; want %s", l, err, want)
		}
	})
}

// waiting is a shell that waits until its input ends, and then says which limits it has.
type waiting struct {
	cmd   *exec.Cmd
	input io.Closer
	said  strings.Builder
}

func startWaiting(t *testing.T, as *syscall.Credential) *waiting {
	t.Helper()
	w := &waiting{cmd: exec.Command("/bin/sh", "-c", "read x; ulimit -Sn; ulimit -Hn")}
	w.cmd.Stdout = &w.said
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	var err error
	if w.input, err = w.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.end() })
	return w
}

// end returns the limits of open files that the shell had at its end.
func (w *waiting) end() string {
	w.input.Close()
	w.cmd.Wait()
	return strings.Join(strings.Fields(w.said.String()), ":")
}

func TestOtherProcess(t *testing.T) {
	own, err := Get(NOFILE)
	if err != nil {
		t.Fatal(err)
	}
	w := startWaiting(t, nil)
	pid := w.cmd.Process.Pid
	want := Limit{Soft: 50, Hard: 60}
	if err := SetOf(pid, NOFILE, want); err != nil {
		t.Fatal(err)
	}
	if l, err := GetOf(pid, NOFILE); err != nil || l != want {
		t.Errorf("GetOf = %s, %v; want %s", l, err, want)
	}
	if l, err := Get(NOFILE); err != nil || l != own {
		t.Errorf("this process has %s, %v; want %s", l, err, own)
	}
	if err := SetOf(pid, NOFILE, Limit{Soft: 2, Hard: 1}); !errors.Is(err, syscall.EINVAL) ||
		!strings.Contains(err.Error(), "set nofile of process "+strconv.Itoa(pid)+" to 2:1") {
		t.Errorf("soft above hard: %v", err)
	}
	if got := w.end(); got != want.String() {
		t.Errorf("the process had %q, want %s", got, want)
	}
	if _, err := GetOf(pid, NOFILE); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a process that is gone: %v, want ESRCH", err)
	}
	for _, pid := range []int{0, -1} {
		_, err := GetOf(pid, NOFILE)
		for _, err := range []error{err, SetOf(pid, NOFILE, want)} {
			if !errors.Is(err, os.ErrInvalid) {
				t.Errorf("process %d: %v, want os.ErrInvalid", pid, err)
			}
		}
	}
	if _, err := GetOf(os.Getpid(), "threads"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an unknown resource: %v", err)
	}
	if l, err := GetOf(os.Getpid(), NOFILE); err != nil || l != own {
		t.Errorf("this process: %s, %v; want %s", l, err, own)
	}
	// A limit of this process, set as that of a process, is one that its children get.
	if failed, got := run(t, "100", "300", "setOf 299"); failed != "" || got != "299:299" {
		t.Errorf("after SetOf of itself the child has %s, %q", got, failed)
	}
}

func TestOtherUsersProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	pid := startWaiting(t, &syscall.Credential{Uid: 65534, Gid: 65534}).cmd.Process.Pid
	withoutPrivilege(t, func() {
		l, err := GetOf(pid, NOFILE)
		for _, err := range []error{err, SetOf(pid, NOFILE, l)} {
			if !errors.Is(err, os.ErrPermission) {
				t.Errorf("process %d: %v; want that it is not permitted", pid, err)
			}
		}
	})
}
