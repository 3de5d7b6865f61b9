//go:build unix

package pack_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

// asProgram makes the test binary one of the programs in programs_test.go; its value is the name, then a mark
// by which the processes of one run are found.
const asProgram = "PACK_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if value, ok := os.LookupEnv(asProgram); ok {
		name, _, _ := strings.Cut(value, " ")
		if err := programs[name](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	leaktest.Main(m)
}

// program is a running pack.
type program struct {
	t    testing.TB
	cmd  *exec.Cmd
	mark string

	mu      sync.Mutex
	grown   sync.Cond
	records []record // its log so far
	other   []string // what it wrote besides
	ended   bool
	silent  bool  // it will write no more
	err     error // of Wait
}

// record is a line of the log.
type record map[string]any

func (r record) msg() string { return fmt.Sprint(r["msg"]) }

// start starts a program; change may adapt the command before.
func start(t testing.TB, name string, change func(*exec.Cmd), args ...string) *program {
	t.Helper()
	p := &program{t: t, mark: fmt.Sprintf("%s %s-%d-%d", name, t.Name(), os.Getpid(), time.Now().UnixNano())}
	p.grown.L = &p.mu
	p.cmd = exec.Command(os.Args[0], args...)
	// Under the race detector a program would sleep for a second before it exits.
	p.cmd.Env = append(os.Environ(), asProgram+"="+p.mark, "GORACE=atexit_sleep_ms=0")
	stderr, theirs, err := os.Pipe() // not StderrPipe: Wait must not close it before the workers have
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = theirs
	if change != nil {
		change(p.cmd)
	}
	err = p.cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer stderr.Close()
		p.readLog(bufio.NewScanner(stderr))
	}()
	go func() {
		err := p.cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended, p.err = true, err
		p.grown.Broadcast()
	}()
	t.Cleanup(func() {
		if !p.hasEnded() {
			p.cmd.Process.Kill()
			p.wait(10 * time.Second)
		}
		p.noneLeft()
		<-read
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, p.text())
		}
	})
	return p
}

func (p *program) readLog(lines *bufio.Scanner) {
	for lines.Scan() {
		var r record
		p.mu.Lock()
		if bytes.HasPrefix(lines.Bytes(), []byte("{")) && json.Unmarshal(lines.Bytes(), &r) == nil {
			p.records = append(p.records, r)
		} else {
			p.other = append(p.other, lines.Text())
		}
		p.grown.Broadcast()
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = true
	p.grown.Broadcast()
}

// said reports whether it writes some text before it ends.
func (p *program) said(text string) bool {
	p.t.Helper()
	found := false
	p.until("the end of the log", 30*time.Second, func() bool {
		found = slices.ContainsFunc(p.other, func(line string) bool { return strings.Contains(line, text) })
		return found || p.silent
	})
	return found
}

func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, r := range p.records {
		for _, k := range slices.Sorted(maps.Keys(r)) {
			fmt.Fprintf(&b, "%s=%v ", k, r[k])
		}
		b.WriteByte('\n')
	}
	return b.String() + strings.Join(p.other, "\n")
}

func (p *program) hasEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// until waits until the predicate, which is called with the lock held, is true.
func (p *program) until(what string, limit time.Duration, ok func() bool) {
	p.t.Helper()
	timer := time.AfterFunc(limit, func() { p.grown.Broadcast() })
	defer timer.Stop()
	deadline := time.Now().Add(limit)
	p.mu.Lock()
	defer p.mu.Unlock()
	for !ok() {
		if !time.Now().Before(deadline) {
			p.t.Fatalf("waited %v for %s", limit, what)
		}
		p.grown.Wait()
	}
}

// logged waits for the nth record (from 1) with one of some messages, and returns it.
func (p *program) logged(n int, msgs ...string) (found record) {
	p.t.Helper()
	p.until(fmt.Sprintf("%q in the log, %d times", msgs, n), 30*time.Second, func() bool {
		seen := 0
		for _, r := range p.records {
			if slices.Contains(msgs, r.msg()) {
				if seen++; seen == n {
					found = r
					return true
				}
			}
		}
		if p.silent {
			p.t.Fatalf("the program ended (%v) before it logged %q", p.err, msgs)
		}
		return false
	})
	return found
}

// count returns how many records have a message.
func (p *program) count(msg string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.records {
		if r.msg() == msg {
			n++
		}
	}
	return n
}

// addresses waits until the pack is up and returns what it listens on, "network address" each.
func (p *program) addresses() []string {
	p.t.Helper()
	return p.listeningOn("pack is up")
}

// listeningOn waits for the record that tells what the program listens on.
func (p *program) listeningOn(msg string) (all []string) {
	p.t.Helper()
	for _, a := range p.logged(1, msg)["listening"].([]any) {
		all = append(all, a.(string))
	}
	return all
}

// listening returns the first of it.
func (p *program) listening(msg string) (network, address string) {
	p.t.Helper()
	network, address, _ = strings.Cut(p.listeningOn(msg)[0], " ")
	return network, address
}

// address returns the only TCP address that it listens on.
func (p *program) address() string {
	p.t.Helper()
	_, address := p.listening("pack is up")
	return address
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits until the master has ended and returns its exit status, -1 for a signal.
func (p *program) wait(limit time.Duration) int {
	p.t.Helper()
	p.until("the end of the master", limit, func() bool { return p.ended })
	return p.cmd.ProcessState.ExitCode()
}

// stop stops the pack gracefully.
func (p *program) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if status := p.wait(30 * time.Second); status != 0 {
		p.t.Errorf("exit status %d, %v", status, p.err)
	}
}

// workers returns the PIDs of the workers that there are.
func (p *program) workers() []int { return slices.Sorted(maps.Keys(p.identities())) }

// identity is which worker a process is.
type identity struct{ id, generation int }

// identities returns which workers there are, by their PIDs. Others, the master and what handlers have started, have none.
func (p *program) identities() map[int]identity {
	all := map[int]identity{}
	for _, pid := range p.processes() {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		var is identity
		if _, after, ok := bytes.Cut(env, []byte("\x00GOPHERPACK_IDENTITY=")); ok {
			fmt.Sscanf(string(after), "id=%d generation=%d", &is.id, &is.generation)
			all[pid] = is
		}
	}
	return all
}

// processes returns the PIDs of every process of this run, zombies left out.
func (p *program) processes() (pids []int) {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range environs {
		env, _ := os.ReadFile(file)
		if bytes.Contains(env, []byte(p.mark)) {
			var pid int
			fmt.Sscanf(file, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

// noneLeft fails the test if a process of this run is there a little later, and ends it.
func (p *program) noneLeft() {
	p.t.Helper()
	var left []int
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if left = p.processes(); len(left) == 0 {
			return
		}
	}
	for _, pid := range left {
		p.t.Errorf("process %d was left behind", pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
