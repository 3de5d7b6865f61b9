// Package logqueue writes a log for those that must not wait for what reads it.
package logqueue

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// MaxLines is how many lines may wait.
const MaxLines = 1000

// Queue writes lines to a log, one after the other, in a goroutine of its own. What reads the log may stall: then lines
// are lost, and how many is told when it reads again. Its methods may be called concurrently.
type Queue struct {
	logger *slog.Logger

	mu      sync.Mutex
	lines   []func()
	taken   int // lines that are being written, and are not yet
	writing bool
	lost    int
	idle    []chan struct{}
}

// New returns a queue that writes with l.
func New(l *slog.Logger) *Queue { return &Queue{logger: l} }

// Put has write called, which writes one line.
func (q *Queue) Put(write func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) >= MaxLines {
		q.lost++
		return
	}
	q.lines = append(q.lines, write)
	q.begin()
}

// begin begins to write. It is called with mu locked.
func (q *Queue) begin() {
	if !q.writing {
		q.writing = true
		go q.write()
	}
}

func (q *Queue) write() {
	for {
		q.mu.Lock()
		if len(q.lines) == 0 && q.lost == 0 {
			q.writing = false
			for _, c := range q.idle {
				close(c)
			}
			q.idle = nil
			q.mu.Unlock()
			return
		}
		lines, lost := q.lines, q.lost
		q.lines, q.taken, q.lost = nil, len(lines)+lost, 0
		q.mu.Unlock()
		for _, write := range lines {
			write()
			q.wrote(1)
		}
		if lost > 0 {
			q.logger.Warn("lines of the log were lost: what reads it was too slow", "lines", lost)
			q.wrote(lost)
		}
	}
}

func (q *Queue) wrote(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken -= n
}

// Lose has it told that n lines were lost.
func (q *Queue) Lose(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lost += n; q.lost > 0 {
		q.begin()
	}
}

// Left returns how many lines would be lost if this program ended now, or are lost already.
func (q *Queue) Left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lines) + q.taken + q.lost
}

// flushTime is how long the end of a program waits for the log.
const flushTime = time.Second

// Flush waits until all lines are written, but for a second at most.
func (q *Queue) Flush() {
	q.mu.Lock()
	if !q.writing {
		q.mu.Unlock()
		return
	}
	done := make(chan struct{})
	q.idle = append(q.idle, done)
	q.mu.Unlock()
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// Logger returns a logger that has its lines written by the queue.
func (q *Queue) Logger() *slog.Logger { return slog.New(handler{q.logger.Handler(), q}) }

type handler struct {
	slog.Handler
	queue *Queue
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	r = r.Clone()
	h.queue.Put(func() { h.Handler.Handle(ctx, r) })
	return nil
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.queue}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.queue}
}
