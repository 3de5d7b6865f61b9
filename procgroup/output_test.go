//go:build linux

package procgroup_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
)

func init() {
	helpers["halves"] = halves
	helpers["flood"] = flood
}

// halves writes the second half of a line when it is told to.
func halves() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1)
	os.Stdout.WriteString("first\nhal")
	c := inherit()
	go func() {
		<-told
		os.Stdout.WriteString("f\nlast")
		os.Exit(0)
	}()
	hold(c)
}

const floodLines = 100_000 // some 8 MiB

// flood writes lines and ends.
func flood() {
	pad := strings.Repeat("x", 75)
	for i := range floodLines {
		fmt.Println(i, pad)
	}
	os.Exit(0)
}

// quietly runs a helper with no Stdout and no Stderr of its own.
func quietly(helper string) func(int) (*exec.Cmd, error) {
	return func(id int) (*exec.Cmd, error) {
		cmd, err := command(helper)(id)
		cmd.Stderr = nil
		return cmd, err
	}
}

// lines collects those that an Output is given.
type lines struct {
	mu  sync.Mutex
	all []procgroup.Line
}

func (c *lines) take(l procgroup.Line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, l)
}

// of returns the lines of a member's stream.
func (c *lines) of(id int, stderr bool) (texts []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.all {
		if l.ID == id && l.Stderr == stderr {
			texts = append(texts, l.Text)
		}
	}
	return texts
}

func (c *lines) until(t *testing.T, id int, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !slices.Contains(c.of(id, false), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("member %d has not written %q", id, text)
		}
	}
}

// TestOutput has members write to both streams; one has a Stdout of its own.
func TestOutput(t *testing.T) {
	var c lines
	own, err := os.Create(t.TempDir() + "/own")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	g := &procgroup.Group{
		Size: 3, Output: c.take, MaxLine: 10, RestartPolicy: procgroup.RestartNever,
		Command: func(id int) (*exec.Cmd, error) {
			const script = `echo "one $0"; echo >&2 "a longer line of $0"; printf "no end"`
			cmd := exec.Command("/bin/sh", "-c", script, fmt.Sprint(id))
			if id == 2 {
				cmd.Stdout = own
			}
			return cmd, nil
		},
	}
	if err := g.Run(t.Context()); err != nil {
		t.Error(err)
	}
	for id := range 2 {
		if got := c.of(id, false); !slices.Equal(got, []string{fmt.Sprint("one ", id), "no end"}) {
			t.Errorf("stdout of member %d: %q", id, got)
		}
	}
	for id := range 3 {
		if got := c.of(id, true); !slices.Equal(got, []string{"a longer l", fmt.Sprint("ine of ", id)}) {
			t.Errorf("stderr of member %d: %q", id, got)
		}
	}
	text, err := os.ReadFile(own.Name())
	if got := c.of(2, false); len(got) > 0 || err != nil || string(text) != "one 2\nno end" {
		t.Errorf("the own stdout of member 2 has %q, %v, and Output %q", text, err, got)
	}
}

// TestOutputStalls has Output take nothing until the members have written all, and ended.
func TestOutputStalls(t *testing.T) {
	var c lines
	goOn := make(chan struct{})
	r := run(t, &procgroup.Group{
		Size: 2, Command: quietly("flood"), RestartPolicy: procgroup.RestartNever,
		Output: func(l procgroup.Line) { <-goOn; c.take(l) },
	})
	r.next(procgroup.Done)
	r.next(procgroup.Done)
	close(goOn)
	if err := <-r.result; err != nil {
		t.Error(err)
	}
	var seen [2]int
	for _, l := range c.all {
		seen[l.ID] += max(1, l.Lost)
	}
	if seen != [2]int{floodLines, floodLines} || len(c.all) == 2*floodLines {
		t.Errorf("%v lines, those included that were lost, %d of them given; want %d of each", seen, len(c.all), floodLines)
	}
}

// TestOutputIsPassedOn releases a member in the midst of a line, twice. The group between has no Output.
func TestOutputIsPassedOn(t *testing.T) {
	var c lines
	newGroup := func(s *procgroup.State, out func(procgroup.Line)) *running {
		return run(t, &procgroup.Group{
			Size: 1, ReadyTimeout: time.Minute, Command: quietly("halves"), Output: out, Adopt: s,
			RestartPolicy: procgroup.RestartOnFailure,
		})
	}
	release := func(r *running) *procgroup.State {
		s := r.Release()
		if err := <-r.result; !errors.Is(err, procgroup.ErrReleased) {
			t.Errorf("Run: %v", err)
		}
		text, err := json.Marshal(s) // as for another program, which gets the files by another way
		if err != nil {
			t.Fatal(err)
		}
		back := new(procgroup.State)
		if err := json.Unmarshal(text, back); err != nil {
			t.Fatal(err)
		}
		m := s.Members[0]
		m.Stdout.Fd() // and makes them block
		back.Members[0].Control, back.Members[0].Stdout, back.Members[0].Stderr = m.Control, m.Stdout, m.Stderr
		return back
	}
	r := newGroup(nil, c.take)
	pid := r.next(procgroup.Ready).PID
	c.until(t, 0, "first")
	s := release(r)
	if part := string(s.Members[0].StdoutPart); part != "hal" {
		t.Errorf("%q was read of a line", part)
	}
	s = release(newGroup(s, nil)) // which has no Output
	r = newGroup(s, c.take)
	syscall.Kill(pid, syscall.SIGUSR1)
	r.next(procgroup.Done)
	if err := <-r.result; err != nil {
		t.Error(err)
	}
	if got := c.of(0, false); !slices.Equal(got, []string{"first", "half", "last"}) {
		t.Errorf("%q", got)
	}
}

// TestOutputOfDescendants has a process leave behind one that writes on and on: Run ends all the same, and so does that.
func TestOutputOfDescendants(t *testing.T) {
	var c lines
	g := &procgroup.Group{
		Size: 1, Output: c.take, RestartPolicy: procgroup.RestartNever,
		Command: func(id int) (*exec.Cmd, error) {
			return exec.Command("/bin/sh", "-c", "yes a line of some length >&2 & echo $!"), nil
		},
	}
	if err := g.Run(t.Context()); err != nil {
		t.Error(err)
	}
	said := c.of(0, false)
	pid, err := strconv.Atoi(strings.Join(said, " "))
	if err != nil {
		t.Fatalf("%q; want the number of a process", said)
	}
	if !gone(pid) {
		t.Errorf("process %d is still there", pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
