// Package output writes the lines that workers write to stdout and stderr, with a word in front that says which worker
// it was.
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
)

// Form is how lines are written.
type Form int

const (
	Text    Form = iota // "worker 3[4711]: line"
	Journal             // that, and a level in front, as systemd's journal reads it: sd-daemon(3)
	JSON                // a line that is an object of JSON as it is, and another as the message of one
)

// Writer writes lines. What Go's runtime writes when a process crashes is written in one piece.
type Writer struct {
	Form           Form
	Stdout, Stderr io.Writer

	writing sync.Mutex // held while something is written

	mu      sync.Mutex
	crashes map[int]*crash // by process; of those that are being written
}

// crash is what the runtime has written so far of the end of a process.
type crash struct {
	worker int
	lines  []string
	size   int
	timer  *time.Timer
}

const (
	maxCrash  = 256 << 10              // what is more of it comes in further pieces
	quiet     = 200 * time.Millisecond // a crash is over when nothing has come for so long
	flushTime = time.Second
)

// begins matches the line with which the runtime begins to tell of a crash.
var begins = regexp.MustCompile(`^(panic: |fatal error: |runtime: |SIG[A-Z]+: |unexpected fault address )`)

// Take writes a line, or keeps it for a while, as part of a crash. It returns when it is written.
func (w *Writer) Take(l procgroup.Line) {
	text := l.Text
	if l.Part {
		text += " [goes on]"
	}
	if !l.Stderr {
		w.write(w.Stdout, w.lines(l.ID, l.PID, false, text))
		return
	}
	if !w.keep(l.PID, l.ID, text) {
		w.write(w.Stderr, w.lines(l.ID, l.PID, false, text))
	}
}

// keep keeps a line that is part of a crash, and reports whether it is.
func (w *Writer) keep(pid, worker int, text string) bool {
	w.mu.Lock()
	c := w.crashes[pid]
	if c == nil && !begins.MatchString(text) {
		w.mu.Unlock()
		return false
	}
	if c == nil {
		c = &crash{worker: worker}
		c.timer = time.AfterFunc(quiet, func() { w.end(pid) })
		if w.crashes == nil {
			w.crashes = map[int]*crash{}
		}
		w.crashes[pid] = c
	}
	c.lines, c.size = append(c.lines, text), c.size+len(text)
	c.timer.Reset(quiet)
	full := c.size > maxCrash
	w.mu.Unlock()
	if full {
		w.end(pid)
	}
	return true
}

// end writes what is kept of a process.
func (w *Writer) end(pid int) {
	w.mu.Lock()
	c := w.crashes[pid]
	delete(w.crashes, pid)
	w.mu.Unlock()
	if c != nil {
		c.timer.Stop()
		w.write(w.Stderr, w.lines(c.worker, pid, true, c.lines...))
	}
}

// Flush writes what is kept. It waits for a second at most, if what reads the log is too slow.
func (w *Writer) Flush() {
	w.mu.Lock()
	var pids []int
	for pid := range w.crashes {
		pids = append(pids, pid)
	}
	w.mu.Unlock()
	if len(pids) == 0 {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, pid := range pids {
			w.end(pid)
		}
	}()
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

func (w *Writer) write(to io.Writer, text []byte) {
	w.writing.Lock()
	defer w.writing.Unlock()
	to.Write(text) // nobody could be told that this fails
}

// lines returns lines of a worker as they are to be written.
func (w *Writer) lines(worker, pid int, crashed bool, lines ...string) []byte {
	if w.Form == JSON {
		return object(worker, pid, crashed, strings.Join(lines, "\n"))
	}
	var all bytes.Buffer
	for _, line := range lines {
		if w.Form == Journal {
			level := ""
			if level, line = cutLevel(line); crashed {
				level = "<3>"
			}
			all.WriteString(level)
		}
		fmt.Fprintf(&all, "worker %d[%d]: %s\n", worker, pid, line)
	}
	return all.Bytes()
}

// cutLevel returns the level that a line begins with, "" if it has none, and the rest.
func cutLevel(line string) (level, rest string) {
	if len(line) > 2 && line[0] == '<' && '0' <= line[1] && line[1] <= '7' && line[2] == '>' {
		return line[:3], line[3:]
	}
	return "", line
}

func object(worker, pid int, crashed bool, text string) []byte {
	if strings.HasPrefix(text, "{") && json.Valid([]byte(text)) {
		return []byte(text + "\n")
	}
	level := "INFO"
	if crashed {
		level = "ERROR"
	}
	line, _ := json.Marshal(struct { // which cannot fail
		Time   time.Time `json:"time"`
		Level  string    `json:"level"`
		Msg    string    `json:"msg"`
		Worker int       `json:"worker"`
		PID    int       `json:"pid"`
	}{time.Now(), level, text, worker, pid})
	return append(line, '\n')
}
