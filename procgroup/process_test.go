//go:build unix

package procgroup_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test/leaktest"
	"github.com/gopherpack/gopherpack/procgroup"
)

// asHelper makes the test binary one of these programs.
const asHelper = "PROCGROUP_TEST_HELPER"

var helpers = map[string]func(){
	"child":      func() { hold(inherit()) },
	"exit3":      func() { os.Exit(3) },
	"deaf":       func() { inherit().Write([]byte{1}); time.Sleep(time.Hour) },
	"silent":     func() { inherit(); time.Sleep(time.Hour) },
	"moved":      moved,
	"stubborn":   func() { signal.Ignore(syscall.SIGTERM); hold(inherit()) },
	"family":     family,
	"grandchild": grandchild,
	"parent":     parent,
	"talker":     talker,
	"signaled":   signaled,
	"counter":    counter,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(asHelper); name != "" {
		helpers[name]()
		return
	}
	leaktest.Main(m)
}

func inherit() *net.UnixConn {
	c, err := procgroup.Inherit()
	if err != nil {
		panic(err)
	}
	return c
}

// hold says ready and lives until the parent ends.
func hold(c *net.UnixConn) {
	c.Write([]byte{1})
	io.Copy(io.Discard, c)
	os.Exit(7)
}

// family starts a process that would outlive it, and says its number.
func family() {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Println(cmd.Process.Pid)
	signal.Ignore(syscall.SIGTERM)
	hold(inherit())
}

// grandchild starts itself before it calls Inherit; the process that it starts must not take the control socket.
func grandchild() {
	if os.Getenv("PROCGROUP_TEST_DEPTH") == "" {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "PROCGROUP_TEST_DEPTH=1")
		cmd.Stdout = os.Stdout
		if err := cmd.Run(); err != nil {
			panic(err)
		}
		hold(inherit())
	}
	_, err := procgroup.Inherit()
	fmt.Println(err)
	os.Exit(0)
}

// moved leaves its process group for that of its parent, as some shells do, and does not heed TERM.
func moved() {
	signal.Ignore(syscall.SIGTERM)
	group, err := unix.Getpgid(os.Getppid())
	if err == nil {
		err = unix.Setpgid(0, group)
	}
	if err != nil {
		panic(err)
	}
	hold(inherit())
}

// parent runs a group of two, and says the numbers of its processes.
func parent() {
	g := &procgroup.Group{Size: 2, ReadyTimeout: time.Minute, Command: command("child"), Event: func(e procgroup.Event) {
		if e.Kind == procgroup.Ready {
			fmt.Println(e.PID)
		}
	}}
	g.Run(context.Background())
}

// talker says in its protocol why it fails.
func talker() {
	c := inherit()
	fmt.Fprintln(c, "the cellar is flooded")
	os.Exit(0)
}

// signaled says ready, then exits with the number of the first signal.
func signaled() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	inherit().Write([]byte{1})
	<-c
	os.Exit(int(syscall.SIGUSR1))
}

func command(helper string) func(int) (*exec.Cmd, error) {
	return func(int) (*exec.Cmd, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), asHelper+"="+helper, "GORACE=atexit_sleep_ms=0")
		cmd.Stderr = os.Stderr
		return cmd, nil
	}
}

// running is a group that a test runs.
type running struct {
	*procgroup.Group
	t      *testing.T
	events chan procgroup.Event
	stop   context.CancelFunc
	result chan error
}

func run(t *testing.T, g *procgroup.Group) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{g, t, make(chan procgroup.Event, 1000), cancel, make(chan error, 1)}
	g.Event = func(e procgroup.Event) { r.events <- e }
	done := make(chan struct{})
	go func() { r.result <- g.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); g.Kill(); <-done })
	return r
}

// next returns the next event of a kind, whatever comes before it.
func (r *running) next(kind procgroup.EventKind) procgroup.Event {
	r.t.Helper()
	for {
		select {
		case e := <-r.events:
			if e.Kind == kind {
				return e
			}
		case err := <-r.result:
			r.result <- err
			if len(r.events) > 0 { // which came before
				continue
			}
			r.t.Fatalf("Run returned %v while waiting for %s", err, kind)
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestGroup(t *testing.T) {
	r := run(t, &procgroup.Group{Size: 3, ReadyTimeout: time.Minute, Command: command("child")})
	pids := map[int]bool{}
	for range 3 {
		e := r.next(procgroup.Ready)
		pids[e.PID] = true
		if pgid, err := unix.Getpgid(e.PID); err != nil || pgid != e.PID {
			t.Errorf("process %d is in group %d, %v", e.PID, pgid, err)
		}
	}
	victim := r.Members()[1]
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e := r.next(procgroup.Failed)
	if e.ID != 1 || e.PID != victim.PID || !strings.Contains(e.Err.Error(), "signal: killed") || e.Retry != 0 {
		t.Errorf("%+v", e)
	}
	if e := r.next(procgroup.Ready); e.ID != 1 || e.Attempt != 2 || pids[e.PID] {
		t.Errorf("%+v", e)
	}
	r.stop()
	if err := <-r.result; err != nil {
		t.Error(err)
	}
	for pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
}

// counter writes numbers, a line each, and ends when the parent does.
func counter() {
	c := inherit()
	go func() {
		io.Copy(io.Discard, c)
		os.Exit(7)
	}()
	for i := 1; ; i++ {
		if _, err := fmt.Fprintln(c, i); err != nil {
			time.Sleep(time.Hour)
		}
	}
}

// TestReleaseAndAdopt passes processes from group to group while they talk. No byte of what they say is lost.
func TestReleaseAndAdopt(t *testing.T) {
	const groups = 20
	var said [2]int // the last number of each
	readLine := func(p *procgroup.Process, c *net.UnixConn) error {
		var line strings.Builder
		for b := make([]byte, 1); b[0] != '\n'; {
			switch _, err := c.Read(b); {
			case err == nil:
				line.WriteString(string(b))
			case line.String() != "" && errors.Is(err, os.ErrDeadlineExceeded):
				c.SetReadDeadline(time.Time{}) // read to the end of the line
			default:
				return err
			}
		}
		n, err := strconv.Atoi(strings.TrimSpace(line.String()))
		if err != nil || n != said[p.ID]+1 {
			t.Errorf("process %d said %q after %d", p.ID, line.String(), said[p.ID])
		}
		said[p.ID] = n
		return nil
	}
	talking := make(chan int, 1)
	serve := func(p *procgroup.Process, c *net.UnixConn) {
		p.Ready()
		for !p.Released() && readLine(p, c) == nil {
			select {
			case talking <- p.ID:
			default:
			}
		}
	}
	newGroup := func(s *procgroup.State) *running {
		return run(t, &procgroup.Group{Size: 2, ReadyTimeout: time.Minute, Serve: serve, Command: command("counter"), Adopt: s})
	}
	r := newGroup(nil)
	r.next(procgroup.Ready)
	r.next(procgroup.Ready)
	members := r.Members()
	for range groups {
		<-talking
		s := r.Release()
		if err := <-r.result; !errors.Is(err, procgroup.ErrReleased) {
			t.Errorf("Run: %v", err)
		}
		r = newGroup(s)
	}
	for id, m := range r.Members() {
		if m != members[id] {
			t.Errorf("%+v; was %+v", m, members[id])
		}
	}
	if err := syscall.Kill(members[1].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := r.next(procgroup.Failed); e.ID != 1 || e.PID != members[1].PID || !strings.Contains(e.Err.Error(), "signal: killed") {
		t.Errorf("%+v", e)
	}
	r.stop()
	if err := <-r.result; err != nil {
		t.Error(err)
	}
	for _, m := range members {
		if alive(m.PID) {
			t.Errorf("process %d is still there", m.PID)
		}
	}
}

// TestAdoptWithoutControl adopts a process that nobody can speak to any more: it is asked to end, replaced, and reaped.
func TestAdoptWithoutControl(t *testing.T) {
	r := run(t, &procgroup.Group{Size: 1, ReadyTimeout: time.Minute, Command: command("deaf")})
	pid := r.next(procgroup.Ready).PID
	s := r.Release()
	s.Members[0].Control.Close()
	s.Members[0].Control = nil
	r = run(t, &procgroup.Group{Size: 1, ReadyTimeout: time.Minute, Command: command("child"), Adopt: s})
	if e := r.next(procgroup.Failed); e.PID != pid || !strings.Contains(e.Err.Error(), "it has no control socket") {
		t.Errorf("%+v", e)
	}
	r.next(procgroup.Ready)
	for deadline := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// TestSharedExtraFiles has commands that share their descriptors.
func TestSharedExtraFiles(t *testing.T) {
	files := []*os.File{os.Stdin, os.Stdout}
	g := &procgroup.Group{Size: 1, Command: func(int) (*exec.Cmd, error) {
		cmd := exec.Command("/nonexistent")
		cmd.ExtraFiles = files[:1]
		return cmd, nil
	}}
	if err := g.Run(t.Context()); err == nil || files[1] != os.Stdout {
		t.Errorf("%v; the caller's files are %v", err, files)
	}
}

func TestFirstProcessFailsForReal(t *testing.T) {
	used, _ := command("exit3")(0)
	used.Run()
	for name, g := range map[string]*procgroup.Group{
		"exit status 3":                  {Command: command("exit3")},
		"killed: not ready within 200ms": {Command: command("silent"), ReadyTimeout: 200 * time.Millisecond},
		"no such file or directory":      {Command: func(int) (*exec.Cmd, error) { return exec.Command("/nonexistent"), nil }},
		"no idea what to run":            {Command: func(int) (*exec.Cmd, error) { return nil, errors.New("no idea what to run") }},
		"was started already":            {Command: func(int) (*exec.Cmd, error) { return used, nil }},
		"returned no command":            {Command: func(int) (*exec.Cmd, error) { return nil, nil }},
		"has not started the command":    {Command: command("child"), Start: func(int, *exec.Cmd) error { return nil }},
		"no start":                       {Command: command("child"), Start: func(int, *exec.Cmd) error { return errors.New("no start") }},
		"the cellar is flooded": {Command: command("talker"), Serve: func(p *procgroup.Process, c *net.UnixConn) {
			line, _ := bufio.NewReader(c).ReadString('\n')
			p.Fail(errors.New(strings.TrimSpace(line)))
		}},
	} {
		g.Size = 3
		if g.ReadyTimeout == 0 {
			g.ReadyTimeout = time.Minute
		}
		if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Run: %v; want an error about %q", err, name)
		}
	}
}

func TestStopKillsTheWholeProcessGroup(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer in.Close()
	r := run(t, &procgroup.Group{Size: 1, ReadyTimeout: time.Minute, StopTimeout: 100 * time.Millisecond,
		Command: func(id int) (*exec.Cmd, error) {
			cmd, err := command("family")(id)
			cmd.Stdout = in
			return cmd, err
		}})
	r.next(procgroup.Ready)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	relative, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := <-r.result; err != nil {
		t.Error(err)
	}
	// The killed process has nobody here who waits for it: it may stay a zombie where PID 1 does not reap.
	if state := stateOf(relative); state != "" && state != "Z" && state != "X" {
		t.Errorf("what the process had started is in state %q", state)
	}
}

// stateOf returns the state letter of a process, or "" if it is gone, once it is either or has had a second.
func stateOf(pid int) (state string) {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return ""
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if state = rest[:1]; state == "Z" {
			return state
		}
	}
	return state
}

func TestParentKilled(t *testing.T) {
	cmd, _ := command("parent")(0)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var pids []int
	for range 2 {
		lines.Scan()
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for _, pid := range pids {
		if state := stateOf(pid); state != "" && state != "Z" {
			t.Errorf("child %d is in state %q after its parent was killed", pid, state)
		}
	}
}

func TestControlIsNotForGrandchildren(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer in.Close()
	r := run(t, &procgroup.Group{Size: 1, ReadyTimeout: time.Minute, Command: func(id int) (*exec.Cmd, error) {
		cmd, err := command("grandchild")(id)
		cmd.Stdout = in
		return cmd, err
	}})
	r.next(procgroup.Ready)
	if line, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != procgroup.ErrDescendant.Error() {
		t.Errorf("Inherit in the grandchild: %q, %v", line, err)
	}
}

func TestSignal(t *testing.T) {
	r := run(t, &procgroup.Group{Size: 2, ReadyTimeout: time.Minute, Command: command("signaled")})
	r.next(procgroup.Ready)
	r.next(procgroup.Ready)
	if err := r.Signal(syscall.SIGUSR1); err != nil {
		t.Error(err)
	}
	for range 2 {
		want := fmt.Sprintf("exit status %d", int(syscall.SIGUSR1))
		if e := r.next(procgroup.Failed); e.Err.Error() != want {
			t.Errorf("%v, want %s", e.Err, want)
		}
	}
}

func TestInheritErrors(t *testing.T) {
	if !errors.Is(procgroup.ErrDescendant, procgroup.ErrNotChild) {
		t.Error("who is a descendant is no child")
	}
	if _, err := procgroup.Inherit(); err != procgroup.ErrNotChild {
		t.Errorf("no child: %v", err)
	}
	t.Setenv("PROCGROUP_LIFELINE", "rope")
	if _, err := procgroup.Inherit(); err == nil || !strings.Contains(err.Error(), `PROCGROUP_LIFELINE: "rope" is not`) {
		t.Errorf("a broken variable: %v", err)
	}
	t.Setenv("PROCGROUP_LIFELINE", fmt.Sprintf("999,%d", os.Getppid()+1))
	if _, err := procgroup.Inherit(); err != procgroup.ErrNotChild {
		t.Errorf("another's variable: %v", err)
	}
	t.Setenv("PROCGROUP_LIFELINE", fmt.Sprintf("999,%d", os.Getppid()))
	if _, err := procgroup.Inherit(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a closed descriptor: %v", err)
	}
}

// TestManyRestarts churns: every process ends again and again while the group is asked to stop.
func TestManyRestarts(t *testing.T) {
	for range 5 {
		r := run(t, &procgroup.Group{Size: 4, ReadyTimeout: time.Minute, Command: command("child")})
		for range 4 {
			r.next(procgroup.Ready)
		}
		for i := range 40 {
			if i%2 == 0 {
				r.Restart(i % 4)
			} else if pid := r.Members()[i%4].PID; pid != 0 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		r.stop()
		if err := <-r.result; err != nil {
			t.Error(err)
		}
	}
}
