//go:build linux

package procgroup_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
)

func init() { helpers["ancestor"] = ancestor }

// ancestor starts a process that holds its control socket and its stdout, says its number, and ends.
func ancestor() {
	c := inherit()
	held, err := c.File()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = []*os.File{held}
	cmd.Stdout = os.Stdout
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Fprintf(c, "%d\nlast words", cmd.Process.Pid)
	os.Exit(3)
}

// gone waits until a process has ended, and reports whether it has.
func gone(pid int) bool {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if state := stateOf(pid); state == "" || state == "Z" || state == "X" {
			return true
		}
	}
	return false
}

// heard is what Serve has read, and how that ended.
type heard struct {
	descendant int
	rest       string
	err        error
}

func hear(c *net.UnixConn) (h heard) {
	text, err := io.ReadAll(c)
	first, rest, _ := strings.Cut(string(text), "\n")
	h.descendant, _ = strconv.Atoi(first)
	h.rest, h.err = rest, err
	return h
}

// TestDescendantHoldsTheControlSocket has a process end while what it has started holds its control socket: Serve reads
// what it said to the end, and is not cut after a while.
func TestDescendantHoldsTheControlSocket(t *testing.T) {
	for _, kill := range []bool{false, true} {
		said := make(chan heard, 10)
		r := run(t, &procgroup.Group{
			Size: 1, Command: command("ancestor"), KillGroup: kill, RestartPolicy: procgroup.RestartNever,
			Serve: func(p *procgroup.Process, c *net.UnixConn) { said <- hear(c) },
		})
		if e := r.next(procgroup.Failed); e.Err.Error() != "exit status 3" {
			t.Errorf("%+v", e)
		}
		h := <-said
		if h.err != nil || h.rest != "last words" {
			t.Errorf("%+v; want all that was said, and its end", h)
		}
		if kill && !gone(h.descendant) {
			t.Errorf("process %d is still there", h.descendant)
		}
		if !kill && !alive(h.descendant) {
			t.Errorf("process %d was killed", h.descendant)
		}
		syscall.Kill(h.descendant, syscall.SIGKILL)
	}
}

// TestKillReachesDescendants kills the group while the end of a process is being dealt with.
func TestKillReachesDescendants(t *testing.T) {
	said, killed := make(chan heard, 10), make(chan struct{})
	r := run(t, &procgroup.Group{
		Size: 1, Command: command("ancestor"), RestartPolicy: procgroup.RestartNever,
		Serve: func(p *procgroup.Process, c *net.UnixConn) { said <- hear(c); <-killed },
	})
	h := <-said
	r.Kill()
	if !gone(h.descendant) {
		t.Errorf("process %d is still there", h.descendant)
		syscall.Kill(h.descendant, syscall.SIGKILL)
	}
	close(killed)
	r.next(procgroup.Failed)
}

// TestDescendantHoldsTheOutput has a process end while what it has started holds the pipe to a Writer.
func TestDescendantHoldsTheOutput(t *testing.T) {
	said := make(chan heard, 10)
	r := run(t, &procgroup.Group{
		Size: 1, RestartPolicy: procgroup.RestartNever,
		Command: func(id int) (*exec.Cmd, error) {
			cmd, err := command("ancestor")(id)
			cmd.Stdout, cmd.WaitDelay = new(bytes.Buffer), 10*time.Millisecond
			return cmd, err
		},
		Serve: func(p *procgroup.Process, c *net.UnixConn) { said <- hear(c) },
	})
	if e := r.next(procgroup.Failed); e.Err.Error() != "exit status 3" {
		t.Errorf("%+v", e)
	}
	syscall.Kill((<-said).descendant, syscall.SIGKILL)
}

// TestRunEndsWithBrokenWriters is the whole of a group whose Writers fail.
func TestRunEndsWithBrokenWriters(t *testing.T) {
	out, in := io.Pipe()
	out.CloseWithError(errors.New("no more tape"))
	r := run(t, &procgroup.Group{Size: 1, ReadyTimeout: time.Minute, Command: func(id int) (*exec.Cmd, error) {
		cmd, err := command("child")(id)
		cmd.Stdout, cmd.Stdin = in, bufio.NewReader(strings.NewReader("x"))
		return cmd, err
	}})
	r.next(procgroup.Ready)
	r.stop()
	if err := <-r.result; err != nil {
		t.Error(err)
	}
}
