package procgroup_test

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

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
