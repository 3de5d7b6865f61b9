package procgroup

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// taker takes lines, once it may.
type taker struct {
	may   chan struct{}
	mu    sync.Mutex
	lines []Line
}

func (t *taker) take(l Line) {
	if t.may != nil {
		<-t.may
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, l)
}

// TestLinesTooFast brings more lines than may wait. Those who bring them do not wait, those of one stream do not cost
// another one's, and what is lost is told at its place.
func TestLinesTooFast(t *testing.T) {
	k := &taker{may: make(chan struct{})}
	o := newOutput(k.take, 100)
	const many = 3 * maxWaiting / lineCost
	for i := range many {
		o.put(Line{ID: 1, Text: fmt.Sprint(i)})
	}
	o.put(Line{ID: 2, Text: "quiet"})
	o.put(Line{ID: 1, Stderr: true, Text: "quiet"})
	close(k.may)
	o.end()
	next, lost, quiet := 0, 0, 0
	for _, l := range k.lines {
		switch {
		case l.ID == 2, l.Stderr:
			quiet++
		case l.Lost > 0:
			lost += l.Lost
			next += l.Lost
		case l.Text != fmt.Sprint(next):
			t.Fatalf("%+v; want line %d", l, next)
		default:
			next++
		}
	}
	if next != many || lost == 0 || lost > many-maxWaiting/(2*lineCost) || quiet != 2 {
		t.Errorf("%d lines, of which %d were lost; want %d. %d of the other streams", next, lost, many, quiet)
	}
	if n := len(k.lines); k.lines[n-1].Lost != lost || !strings.Contains(k.lines[n-1].Text, fmt.Sprint(lost)) {
		t.Errorf("%+v; want all %d lines that were lost in one", k.lines[n-1], lost)
	}
	for s, n := range o.waiting {
		if n != 0 {
			t.Errorf("%d bytes of %v wait", n, s)
		}
	}
}

// TestOutputThatTakesNothing is left at the end.
func TestOutputThatTakesNothing(t *testing.T) {
	k := &taker{may: make(chan struct{})}
	o := newOutput(k.take, 100)
	o.patience = time.Millisecond
	o.put(Line{Text: "a"})
	o.put(Line{Text: "b"})
	o.end()
	o.put(Line{Text: "c"})
	close(k.may)
	<-o.idle
	if len(k.lines) > 1 { // none, if the machine is busy
		t.Errorf("%+v; nothing is taken after the end but what was being taken", k.lines)
	}
}

// TestSplit has texts arrive in pieces of any size.
func TestSplit(t *testing.T) {
	for range 1000 {
		max := 1 + rand.IntN(8)
		var text strings.Builder
		for range rand.IntN(50) {
			text.WriteByte("\n\nab"[rand.IntN(4)])
		}
		k := &taker{}
		s := &stream{out: newOutput(k.take, max), line: Line{ID: 7, PID: 8, Stderr: true}}
		for rest := text.String(); rest != ""; {
			n := 1 + rand.IntN(len(rest))
			s.split([]byte(rest[:n]))
			rest = rest[n:]
		}
		s.out.end()
		var back strings.Builder
		for _, l := range k.lines {
			if l.ID != 7 || l.PID != 8 || !l.Stderr || len(l.Text) > max || l.Part && len(l.Text) < max {
				t.Errorf("%+v with lines of up to %d bytes", l, max)
			}
			back.WriteString(l.Text)
			if !l.Part {
				back.WriteByte('\n')
			}
		}
		if back.Write(s.part); back.String() != text.String() {
			t.Fatalf("%q became %q in lines of up to %d bytes: %+v", text.String(), back.String(), max, k.lines)
		}
	}
}

func TestLinesTo(t *testing.T) {
	var b strings.Builder
	to := LinesTo(&b)
	to(Line{ID: 3, Text: "x"})
	to(Line{ID: 0})
	if b.String() != "3: x\n0: \n" {
		t.Errorf("%q", b.String())
	}
}
