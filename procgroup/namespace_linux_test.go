package procgroup_test

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/procgroup"
)

// TestMemberInPIDNamespace has members that are process 1 of PID namespaces of their own, and do not see their parent.
func TestMemberInPIDNamespace(t *testing.T) {
	probe := exec.Command("/bin/true")
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID}
	if probe.SysProcAttr = attr; probe.Run() != nil {
		t.Skip("no namespaces")
	}
	r := run(t, &procgroup.Group{Size: 2, ReadyTimeout: time.Minute, Command: func(id int) (*exec.Cmd, error) {
		cmd, err := command("child")(id)
		cmd.SysProcAttr = attr
		return cmd, err
	}, Terminate: func(p *procgroup.Process) error { return p.Signal(syscall.SIGKILL) }})
	for range 2 {
		r.next(procgroup.Ready)
	}
	r.stop()
	if e := r.next(procgroup.Stopped); !strings.Contains(e.Err.Error(), "killed") {
		t.Error(e)
	}
}

// TestReapOrphans has a member leave an orphan to this process, and another member end, whose exit status is not lost.
func TestReapOrphans(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skip("prctl PR_SET_CHILD_SUBREAPER: ", err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	said := make(chan string, 1)
	r := run(t, &procgroup.Group{
		Size: 2, ReapOrphans: true, RestartPolicy: procgroup.RestartNever,
		Command: func(id int) (*exec.Cmd, error) {
			if id == 1 {
				return exec.Command("/bin/sh", "-c", "exit 3"), nil
			}
			return exec.Command("/bin/sh", "-c", "(sleep 0.1 >&- 2>&- & echo $!); exec sleep 1000"), nil
		},
		Output: func(l procgroup.Line) { said <- l.Text },
	})
	if e := r.next(procgroup.Failed); e.ID != 1 || e.Err.Error() != "exit status 3" {
		t.Errorf("%+v; want exit status 3 of member 1", e)
	}
	orphan, err := strconv.Atoi(<-said)
	if err != nil {
		t.Fatal(err)
	}
	for alive(orphan) { // as a zombie, too
		time.Sleep(10 * time.Millisecond)
	}
	r.stop()
	if e := r.next(procgroup.Stopped); e.Err == nil || e.Err.Error() != "signal: terminated" {
		t.Errorf("%+v; want it to be terminated", e)
	}
}
