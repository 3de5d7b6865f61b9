package procgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Line is a line that a member wrote to its Stdout or Stderr; see Group.Output.
type Line struct {
	ID     int    // the member
	PID    int    // its process; what that has started may have written the line
	Stderr bool   // it was written to Stderr, not to Stdout
	Text   string // without the newline
	Part   bool   // the line is longer than MaxLine, and goes on in the next one of this stream

	// Lost is how many lines of the stream, or parts of such, were lost here because they came faster than Output took
	// them. Text says so then, and is not the member's.
	Lost int
}

// LinesTo returns an Output that writes lines to w, each by one Write and after the number of its member: "3: text".
// Errors of w are ignored.
func LinesTo(w io.Writer) func(Line) {
	return func(l Line) { fmt.Fprintf(w, "%d: %s\n", l.ID, l.Text) }
}

const (
	// maxWaiting is how much of the lines of each member's Stdout, and of its Stderr, may wait, in bytes.
	maxWaiting = 1 << 20

	// lineCost is what a line takes besides its text.
	lineCost = 64

	// outputPatience is how long the end of Run waits for an Output that takes nothing.
	outputPatience = 5 * time.Second
)

// output gives lines to whoever takes them, one after the other, in a goroutine of its own. Those who bring lines never
// wait for that.
type output struct {
	take     func(Line) // nil: nobody wants them
	maxLine  int
	patience time.Duration // of end

	mu      sync.Mutex
	lines   []Line
	waiting map[source]int // bytes of lines that are not taken yet
	lost    map[source]int // lines, since the last that was not
	taken   int            // lines, ever
	idle    chan struct{}  // closed when nothing waits
	over    bool           // nothing is taken any more
	streams map[*stream]bool
}

// source is where lines come from, for what may wait.
type source struct {
	id     int
	stderr bool
}

func (l Line) source() source { return source{l.ID, l.Stderr} }

func newOutput(take func(Line), maxLine int) *output {
	idle := make(chan struct{})
	close(idle)
	return &output{
		take: take, maxLine: maxLine, patience: outputPatience,
		waiting: map[source]int{}, lost: map[source]int{}, idle: idle, streams: map[*stream]bool{},
	}
}

// put has a line taken, or lost if too much of its source waits.
func (o *output) put(l Line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.take == nil || o.over {
		return
	}
	room := maxWaiting - o.waiting[l.source()]
	if o.lost[l.source()] > 0 {
		room -= maxWaiting / 2 // so that losses are told of now and then, not at every other line
	}
	if room < cost(l) {
		o.lost[l.source()]++
		return
	}
	o.tellLost(l.source())
	o.add(l)
}

func cost(l Line) int { return len(l.Text) + lineCost }

// tellLost adds a line that tells how many were lost. It is called with mu locked, as add is.
func (o *output) tellLost(s source) {
	if n := o.lost[s]; n > 0 {
		delete(o.lost, s)
		text := fmt.Sprintf("[%d lines were lost: they came faster than they were taken]", n)
		o.add(Line{ID: s.id, Stderr: s.stderr, Lost: n, Text: text})
	}
}

func (o *output) add(l Line) {
	o.lines = append(o.lines, l)
	o.waiting[l.source()] += cost(l)
	select {
	case <-o.idle:
		o.idle = make(chan struct{})
		go o.deliver()
	default:
	}
}

func (o *output) deliver() {
	for l, ok := o.next(); ok; l, ok = o.next() {
		o.take(l)
		o.took(l)
	}
}

// next returns the next line, or false if there is none, and the delivery ends.
func (o *output) next() (Line, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) == 0 && !o.over {
		for s := range o.lost {
			o.tellLost(s)
		}
	}
	if len(o.lines) == 0 {
		close(o.idle)
		return Line{}, false
	}
	l := o.lines[0]
	o.lines[0] = Line{} // its text is not held any longer
	o.lines = o.lines[1:]
	return l, true
}

func (o *output) took(l Line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting[l.source()] -= cost(l)
	o.taken++
}

// end reads what has arrived until now, and waits until all is taken, or, for a while, nothing.
func (o *output) end() {
	o.mu.Lock()
	left := slices.Collect(maps.Keys(o.streams))
	o.mu.Unlock()
	for _, s := range left {
		s.interrupt()
	}
	for _, s := range left {
		<-s.done
	}
	for o.flushed() != nil {
	}
}

var errBusy = errors.New("lines are being taken")

// flushed waits until all lines are taken. It gives up, and returns nil, too, if none is for a while.
func (o *output) flushed() error {
	o.mu.Lock()
	idle, before := o.idle, o.taken
	o.mu.Unlock()
	timer := time.NewTimer(o.patience)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.taken != before {
			return errBusy
		}
		o.over, o.lines = true, nil
	}
	return nil
}

// stream is what comes from one end of a pipe, in lines.
type stream struct {
	out   *output
	line  Line // without its text
	file  *os.File
	part  []byte // the beginning of the next line
	keep  atomic.Bool
	done  chan struct{} // closed when nobody reads any more
	ended bool          // the file is closed; set before done is
}

// start begins to read the lines of a process.
func (o *output) start(s *stream, pid int) {
	s.out, s.line.PID, s.done = o, pid, make(chan struct{})
	o.mu.Lock()
	o.streams[s] = true
	o.mu.Unlock()
	go s.read()
}

// read reads until nobody has the other end any more, or interrupt is called; then what has arrived is still read, but
// if it is kept.
func (s *stream) read() {
	defer close(s.done)
	defer s.forget()
	buf := make([]byte, 32<<10)
	n, err := s.file.Read(buf)
	for ; err == nil; n, err = s.file.Read(buf) {
		s.split(buf[:n])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if s.keep.Load() {
			return
		}
		for range maxWaiting / len(buf) { // what else has the other end may write on and on
			n, err := readNow(s.file, buf)
			if n <= 0 || err != nil {
				break
			}
			s.split(buf[:n])
		}
	}
	if len(s.part) > 0 {
		s.put(string(s.part), false)
	}
	s.file.Close()
	s.ended = true
}

func (s *stream) forget() {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	delete(s.out.streams, s)
}

// interrupt has read return.
func (s *stream) interrupt() { s.file.SetReadDeadline(time.Unix(1, 0)) }

// release stops reading, and returns what is needed to go on; nil if there is nothing to go on with.
func (s *stream) release() (file *os.File, part []byte) {
	s.keep.Store(true)
	s.interrupt()
	<-s.done
	if s.ended {
		return nil, nil
	}
	return s.file, s.part
}

// split makes lines of what was read.
func (s *stream) split(text []byte) {
	for len(text) > 0 {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if room := s.out.maxLine - len(s.part); len(line) > room {
			s.put(string(s.part)+string(line[:room]), true)
			s.part, text = s.part[:0], text[room:]
			continue
		}
		if !whole {
			s.part = append(s.part, line...)
			return
		}
		s.put(string(s.part)+string(line), false)
		s.part, text = s.part[:0], rest
	}
}

func (s *stream) put(text string, part bool) {
	l := s.line
	l.Text, l.Part = text, part
	s.out.put(l)
}

// capture returns streams of what a command writes that has no Stdout or Stderr, and the other ends, to be closed when
// it is started.
func (g *Group) capture(id int, cmd *exec.Cmd) (streams []*stream, theirs []io.Closer, err error) {
	if g.Output == nil {
		return nil, nil, nil
	}
	for i, to := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
		if *to != nil {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(streams, theirs)
			return nil, nil, err
		}
		giveTo(cmd, w)
		*to = w
		streams = append(streams, &stream{file: r, line: Line{ID: id, Stderr: i == 1}})
		theirs = append(theirs, w)
	}
	return streams, theirs, nil
}

// closeAll closes both ends of streams that were not started.
func closeAll(streams []*stream, theirs []io.Closer) {
	for _, s := range streams {
		s.file.Close()
	}
	closeEach(theirs)
}

func closeEach(files []io.Closer) {
	for _, f := range files {
		f.Close()
	}
}

// save notes what another group needs to go on with the lines of a process.
func (m *MemberState) save(streams []*stream) {
	for _, s := range streams {
		if file, part := s.release(); s.line.Stderr {
			m.Stderr, m.StderrPart = file, part
		} else {
			m.Stdout, m.StdoutPart = file, part
		}
	}
}

// load goes on with the lines of a process. It closes the files.
func (m *MemberState) load(p *Process) {
	for i, file := range []*os.File{m.Stdout, m.Stderr} {
		if file == nil {
			continue
		}
		mine, err := reopen(file)
		file.Close()
		if err != nil {
			continue // there is no such pipe
		}
		s := &stream{file: mine, line: Line{ID: p.ID, Stderr: i == 1}, part: [][]byte{m.StdoutPart, m.StderrPart}[i]}
		p.streams = append(p.streams, s)
		p.group.out.start(s, p.PID)
	}
}
