//go:build unix

// Package program starts programs for tests: it reads their logs while they write them, and finds their processes, and
// those that these have started.
package program

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Mark is the environment variable by which the processes of one program are found. Each program has another value.
const Mark = "TEST_PROGRAM_MARK"

// Program is a running program, and all that it has started.
type Program struct {
	others others // processes that are not of it

	Cmd  *exec.Cmd
	mark string
	read chan struct{} // closed when there is nothing more to read

	reading sync.Mutex // held while the log is not to be read

	mu      sync.Mutex
	lines   []Line
	ended   bool
	err     error         // of Wait
	silent  bool          // no process can write to the log any more
	changed chan struct{} // closed at the next change of these
}

// Line is a line of the log.
type Line struct {
	Text   string
	Record Record // nil if the line is no object of JSON
}

// Record is a line of a JSON log.
type Record map[string]any

// Msg returns the message.
func (r Record) Msg() string { return fmt.Sprint(r["msg"]) }

var started atomic.Int64

// Start starts a program, whose standard error, unless it has one, is its log.
func Start(cmd *exec.Cmd) (*Program, error) {
	p := &Program{
		Cmd: cmd, mark: fmt.Sprintf("%d-%d-%d", os.Getpid(), started.Add(1), time.Now().UnixNano()),
		read: make(chan struct{}), changed: make(chan struct{}),
	}
	// Under the race detector a program would sleep for a second before it exits.
	cmd.Env = append(cmd.Environ(), Mark+"="+p.mark, "GORACE=atexit_sleep_ms=0")
	stderr, theirs, err := os.Pipe() // not StderrPipe: Wait must not close it before the last process has
	if err != nil {
		return nil, err
	}
	if cmd.Stderr == nil {
		cmd.Stderr = theirs
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		stderr.Close()
		return nil, err
	}
	go func() {
		defer close(p.read)
		defer stderr.Close()
		p.readLog(bufio.NewReader(stderr))
	}()
	go func() {
		err := cmd.Wait()
		p.change(func() { p.ended, p.err = true, err })
	}()
	return p, nil
}

// change changes what others may wait for.
func (p *Program) change(how func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	how()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Program) readLog(log *bufio.Reader) {
	for {
		p.reading.Lock()
		p.reading.Unlock() //lint:ignore SA2001 it waits until it may read
		text, err := log.ReadString('\n')
		// A process that was killed as it wrote its stacks leaves a line without an end.
		if at := strings.Index(text, `{"time":"`); at > 0 && !strings.HasPrefix(text, "{") {
			p.addLine(text[:at])
			text = text[at:]
		}
		if text != "" {
			p.addLine(text)
		}
		if err != nil {
			p.change(func() { p.silent = true })
			return
		}
	}
}

// Await waits until something is so, and reports whether it came to that in time. It looks when something has changed
// in the log, and from time to time.
func (p *Program) Await(limit time.Duration, ok func() bool) bool {
	timeout := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if ok() {
			return true
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-timeout:
			return ok()
		}
	}
}

func (p *Program) addLine(text string) {
	l := Line{Text: strings.TrimSuffix(text, "\n")}
	if !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &l.Record) != nil {
		l.Record = nil
	}
	p.change(func() { p.lines = append(p.lines, l) })
}

// Stall has the log not be read, beyond what is being read, until the function that it returns is called.
func (p *Program) Stall() (end func()) {
	p.reading.Lock()
	return p.reading.Unlock
}

// Flood has the log not be read until the function that it returns is called, and sends the first process a signal,
// because of which it writes to the log, so many times.
func (p *Program) Flood(s os.Signal, times int) (end func()) {
	end = sync.OnceFunc(p.Stall())
	for range times {
		p.Cmd.Process.Signal(s)
		time.Sleep(2 * time.Millisecond) // or several are one
	}
	return end
}

// Lines returns the log from its line n on. It is not to be changed.
func (p *Program) Lines(n int) []Line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clip(p.lines[n:])
}

// Records returns the records of the log.
func (p *Program) Records() (all []Record) {
	for _, l := range p.Lines(0) {
		if l.Record != nil {
			all = append(all, l.Record)
		}
	}
	return all
}

// Other returns what it wrote besides records.
func (p *Program) Other() (all []string) {
	for _, l := range p.Lines(0) {
		if l.Record == nil {
			all = append(all, l.Text)
		}
	}
	return all
}

// Nth returns the nth record, from 1, that has one of some messages; nil if there are fewer.
func (p *Program) Nth(n int, msgs ...string) Record {
	for _, l := range p.Lines(0) {
		if l.Record != nil && slices.Contains(msgs, l.Record.Msg()) {
			if n--; n == 0 {
				return l.Record
			}
		}
	}
	return nil
}

// Count returns how many records have a message.
func (p *Program) Count(msg string) int { return Count(p.Lines(0), msg) }

// Count returns how many records have a message.
func Count(lines []Line, msg string) (n int) {
	for _, l := range lines {
		if l.Record != nil && l.Record.Msg() == msg {
			n++
		}
	}
	return n
}

// Text returns the log for a reader.
func (p *Program) Text() string { return Text(p.Lines(0)) }

// Text returns lines of a log for a reader.
func Text(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		if l.Record == nil {
			b.WriteString(l.Text)
		}
		for _, k := range slices.Sorted(maps.Keys(l.Record)) {
			fmt.Fprintf(&b, "%s=%v ", k, l.Record[k])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// PID returns the number of its first process.
func (p *Program) PID() int { return p.Cmd.Process.Pid }

// Ended reports whether its first process has ended.
func (p *Program) Ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Err tells how its first process ended.
func (p *Program) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Silent reports whether none of its processes can write to the log any more.
func (p *Program) Silent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

// Kill ends every process of the program.
func (p *Program) Kill() {
	p.Cmd.Process.Kill()
	for _, pid := range p.Processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// CopySelf makes a copy of the test binary.
func CopySelf(name string) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return WriteExecutable(name, self)
}

// WriteExecutable writes a file that is to be run. The name is to be new: what runs cannot be written to.
func WriteExecutable(name string, content []byte) error {
	syscall.ForkLock.RLock() // a child that has the descriptor, between fork and exec, would make the file busy
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(name, content, 0o755)
}
