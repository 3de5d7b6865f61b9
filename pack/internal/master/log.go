package master

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// maxLines is how many lines of the log may wait for whoever reads it.
const maxLines = 1000

// flushTime is how long the end of the pack, or of this program, waits for the log.
const flushTime = time.Second

// logHand writes the log. What reads it may stall: then lines are lost, and how many is told when it reads again, but
// nothing waits.
type logHand struct {
	logger *slog.Logger

	mu      sync.Mutex
	lines   []logLine
	taken   int // lines that are being written, and are not yet
	writing bool
	lost    int
	idle    []chan struct{}
}

func newLogHand(l *slog.Logger) *logHand { return &logHand{logger: l} }

func (h *logHand) debug(msg string, args ...any) { h.put(logLine{slog.LevelDebug, msg, args}) }

func (h *logHand) put(l logLine) {
	if !h.logger.Enabled(context.Background(), l.level) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lines) >= maxLines {
		h.lost++
		return
	}
	h.lines = append(h.lines, l)
	h.begin()
}

// begin begins to write. It is called with mu locked.
func (h *logHand) begin() {
	if !h.writing {
		h.writing = true
		go h.write()
	}
}

// lose has it told that lines were lost.
func (h *logHand) lose(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost += n; h.lost > 0 {
		h.begin()
	}
}

// left returns how many lines would be lost if this program ended now, or are lost already.
func (h *logHand) left() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.lines) + h.taken + h.lost
}

func (h *logHand) write() {
	for {
		h.mu.Lock()
		if len(h.lines) == 0 && h.lost == 0 {
			h.writing = false
			for _, c := range h.idle {
				close(c)
			}
			h.idle = nil
			h.mu.Unlock()
			return
		}
		lines, lost := h.lines, h.lost
		h.lines, h.taken, h.lost = nil, len(lines)+lost, 0
		h.mu.Unlock()
		for _, l := range lines {
			h.logger.Log(context.Background(), l.level, l.msg, l.args...)
			h.mu.Lock()
			h.taken--
			h.mu.Unlock()
		}
		if lost > 0 {
			h.logger.Warn("lines of the log were lost: what reads it was too slow", "lines", lost)
			h.mu.Lock()
			h.taken -= lost
			h.mu.Unlock()
		}
	}
}

// flush waits until all lines are written, but not for long.
func (h *logHand) flush() {
	done := make(chan struct{})
	h.mu.Lock()
	if !h.writing {
		close(done)
	} else {
		h.idle = append(h.idle, done)
	}
	h.mu.Unlock()
	within(flushTime, done)
}

// within waits until done is closed, but not longer than d.
func within(d time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
