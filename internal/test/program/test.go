//go:build unix

package program

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for what should come soon, on a machine that is busy with other tests.
const Patience = 30 * time.Second

// Test is a program under test: the test fails if it does not come to what is waited for.
type Test struct {
	*Program
	t    testing.TB
	said int // lines that Says has gone through
}

// Run starts a program, which is killed when the test ends, if it has not ended; and no process of it may be left then.
func Run(t testing.TB, cmd *exec.Cmd) *Test {
	t.Helper()
	started, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	p := &Test{Program: started, t: t}
	t.Cleanup(func() {
		if !p.Ended() {
			p.Cmd.Process.Kill()
			p.Wait(10 * time.Second)
		}
		p.NoneLeft()
		<-p.read
		if t.Failed() {
			t.Logf("log of %q:\n%s", cmd.Args, p.Text())
		}
	})
	return p
}

// Until waits until something is so.
func (p *Test) Until(what string, limit time.Duration, ok func() bool) {
	p.t.Helper()
	if !p.Await(limit, ok) {
		p.t.Fatalf("waited %v for %s", limit, what)
	}
}

// Logged waits for the nth record, from 1, with one of some messages, and returns it.
func (p *Test) Logged(n int, msgs ...string) (found Record) {
	p.t.Helper()
	p.Until(fmt.Sprintf("%q in the log, %d times", msgs, n), Patience, func() bool {
		silent := p.Silent() // before the last look
		if found = p.Nth(n, msgs...); found == nil && silent {
			p.t.Fatalf("the program ended (%v) before it logged %q", p.Err(), msgs)
		}
		return found != nil
	})
	return found
}

// Said reports whether it writes some text that is no record before it ends.
func (p *Test) Said(text string) bool {
	p.t.Helper()
	found := false
	p.Until("the end of the log", Patience, func() bool {
		silent := p.Silent()
		found = slices.ContainsFunc(p.Other(), func(line string) bool { return strings.Contains(line, text) })
		return found || silent
	})
	return found
}

// Says waits for the next line that matches, after the one that it found before, and returns the match.
func (p *Test) Says(pattern *regexp.Regexp) (match []string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("a line %q", pattern), Patience, func() bool {
		silent := p.Silent()
		for _, l := range p.Lines(p.said) {
			p.said++
			if match = pattern.FindStringSubmatch(l.Text); match != nil {
				return true
			}
		}
		if silent {
			p.t.Fatalf("the program ended (%v) before it said %q", p.Err(), pattern)
		}
		return false
	})
	return match
}

// ListeningOn waits for the record that tells what the program listens on, and returns it, "network address" each.
func (p *Test) ListeningOn(msg string) (all []string) {
	p.t.Helper()
	for _, a := range p.Logged(1, msg)["listening"].([]any) {
		all = append(all, a.(string))
	}
	return all
}

// Listening returns the first of it.
func (p *Test) Listening(msg string) (network, address string) {
	p.t.Helper()
	network, address, _ = strings.Cut(p.ListeningOn(msg)[0], " ")
	return network, address
}

// Addresses waits until the pack is up, and returns what it listens on.
func (p *Test) Addresses() []string {
	p.t.Helper()
	return p.ListeningOn("pack is up")
}

// Address returns the only TCP address that it listens on.
func (p *Test) Address() string {
	p.t.Helper()
	_, address := p.Listening("pack is up")
	return address
}

// Signal sends a signal to its first process.
func (p *Test) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Wait waits until its first process has ended, and returns its exit status, -1 for a signal.
func (p *Test) Wait(limit time.Duration) int {
	p.t.Helper()
	p.Until("the end of the program", limit, p.Ended)
	return p.Cmd.ProcessState.ExitCode()
}

// WaitSilent waits until no process can write to the log any more, which is when the last has ended.
func (p *Test) WaitSilent() {
	p.t.Helper()
	p.Until("the end of the log", Patience, p.Silent)
}

// Stop stops the program gracefully, and waits for the end of its log.
func (p *Test) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	if status := p.Wait(Patience); status != 0 {
		p.t.Errorf("exit status %d, %v", status, p.Err())
	}
	p.WaitSilent()
}

// NoneLeft fails the test if a process of the program is there a little later, and ends it.
func (p *Test) NoneLeft() {
	p.t.Helper()
	const soon = 10 * time.Second
	begun := time.Now()
	p.Await(soon, p.Silent) // which costs less than to look at every process
	if p.Await(soon-time.Since(begun), func() bool { return len(p.Processes()) == 0 }) {
		return
	}
	for _, pid := range p.Processes() {
		p.t.Errorf("process %d was left behind", pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// HasWorkers waits until the workers are complete.
func (p *Test) HasWorkers(n int) {
	p.t.Helper()
	if !p.Await(Patience, func() bool { return p.Complete(n) }) {
		p.t.Fatalf("there are workers %v; want %d of one generation", p.Identities(), n)
	}
}

// Replaced waits until there are n workers, and none of those before, and returns them.
func (p *Test) Replaced(before []int, n int) (now []int) {
	p.t.Helper()
	old := func(pid int) bool { return slices.Contains(before, pid) }
	ok := p.Await(Patience, func() bool {
		now = p.Workers()
		return len(now) == n && !slices.ContainsFunc(now, old) || p.Ended()
	})
	if !ok || p.Ended() {
		p.t.Fatalf("the workers are %v, and were %v; the program's status: %v", now, before, p.Err())
	}
	return now
}

// IsParent fails the test unless every worker is a child of the first process.
func (p *Test) IsParent() {
	p.t.Helper()
	for _, pid := range p.Workers() {
		if parent := Parent(pid); parent != 0 && parent != p.PID() {
			p.t.Errorf("the parent of worker %d is %d, the master is %d", pid, parent, p.PID())
		}
	}
}
