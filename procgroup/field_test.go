//go:build unix

package procgroup_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/procgroup"
)

// TestGroupsOfTheirOwn has commands that ask for a session or a process group, which all are killed when they do not
// end.
func TestGroupsOfTheirOwn(t *testing.T) {
	own, err := unix.Getpgid(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, helper string
		attr         *syscall.SysProcAttr
	}{
		{"session", "stubborn", &syscall.SysProcAttr{Setsid: true}},
		{"somebody's group", "stubborn", &syscall.SysProcAttr{Setpgid: true, Pgid: own}},
		{"it moves", "moved", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, &procgroup.Group{Size: 1, ReadyTimeout: time.Minute, StopTimeout: time.Millisecond,
				Command: func(id int) (*exec.Cmd, error) {
					cmd, err := command(tt.helper)(id)
					cmd.SysProcAttr = tt.attr
					return cmd, err
				}})
			pid := r.next(procgroup.Ready).PID
			group, err := unix.Getpgid(pid)
			if err != nil || (group == pid) != (tt.helper != "moved") {
				t.Errorf("process %d is in group %d, %v", pid, group, err)
			}
			r.stop()
			if err := <-r.result; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStoppedProcessEnds asks a process to end that was stopped, as by the terminal from which it tried to read.
func TestStoppedProcessEnds(t *testing.T) {
	r := run(t, &procgroup.Group{Size: 1, ReadyTimeout: time.Minute, StopTimeout: time.Hour, Command: command("child")})
	if err := syscall.Kill(r.next(procgroup.Ready).PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := <-r.result; err != nil {
		t.Error(err)
	}
}

// TestTerminateBySignal has processes that end by another signal than TERM.
func TestTerminateBySignal(t *testing.T) {
	r := run(t, &procgroup.Group{Size: 2, ReadyTimeout: time.Minute, StopTimeout: time.Hour, Command: command("signaled"),
		Terminate: func(p *procgroup.Process) error { return p.Signal(syscall.SIGUSR1) }})
	for range 2 {
		r.next(procgroup.Ready)
	}
	r.stop()
	for range 2 {
		if e := r.next(procgroup.Stopped); e.Err == nil || e.Err.Error() != fmt.Sprintf("exit status %d", syscall.SIGUSR1) {
			t.Errorf("it ended by %v", e.Err)
		}
	}
}

// TestOutputOfAnotherUser has a process of another user open its standard output by its name, as nginx does for its log.
func TestOutputOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	if _, err := os.Stat("/dev/stdout"); err != nil {
		t.Skip(err)
	}
	var said []string
	g := &procgroup.Group{
		Size: 1, RestartPolicy: procgroup.RestartNever,
		Command: func(int) (*exec.Cmd, error) {
			cmd := exec.Command("/bin/sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr")
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			return cmd, nil
		},
		Output: func(l procgroup.Line) { said = append(said, l.Text) },
	}
	err := g.Run(t.Context())
	all := strings.Join(said, ",")
	if err != nil || all != "out,err" && all != "err,out" {
		t.Errorf("it said %q, %v", said, err)
	}
}

// TestStopWhileStarting ends the context of a large group while its members are being started.
func TestStopWhileStarting(t *testing.T) {
	const size = 200
	r := run(t, &procgroup.Group{Size: size, Command: command("child")})
	r.next(procgroup.Ready)
	r.stop()
	if err := <-r.result; err != nil {
		t.Error(err)
	}
	started := 1
	for len(r.events) > 0 {
		if e := <-r.events; e.Kind == procgroup.Started {
			started++
		}
	}
	if started > size/2 {
		t.Errorf("%d of %d members were started all the same", started, size)
	}
}
