package drain

import (
	"context"
	"maps"
	"slices"
	"time"
)

// goGrace is how long it may take, at least, until the next of the connections goes that are handed over.
const goGrace = time.Second

// BeginDrain makes every further response ask the client to close, but for connections that are handed over, if
// that is wanted, and calls what was registered by RegisterOnShutdown. It is called while the server still accepts.
func (h *HTTP) BeginDrain(delay time.Duration, handOver bool) {
	h.drainDelay, h.drainBegan = delay, time.Now()
	h.moving.Store(handOver)
	if h.draining.CompareAndSwap(false, true) {
		close(h.begun)
		callHooks(h.Server)
	}
}

func (h *HTTP) handsOver() bool { return h.moving.Load() && !h.staying.Load() }

// EndHandover implements Mover.
func (h *HTTP) EndHandover(ctx context.Context) {
	h.staying.Store(true)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for h.leaving() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// Shed implements Mover.
func (h *HTTP) Shed(keepBusy bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if m, ok := c.own.(movableConn); ok && !h.staying.Load() {
			m.movablePart().consider(keepBusy)
		}
	}
}

// leaving recalls connections that have been asked to go, and reports whether some are on their way.
func (h *HTTP) leaving() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	some := false
	for c := range h.conns {
		if m, ok := c.own.(movableConn); ok && m.movablePart().stay() {
			some = true
		}
	}
	return some
}

// move has all idle connections go; those that become idle later follow.
func (h *HTTP) move() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if m, ok := c.own.(movableConn); ok && !h.staying.Load() {
			m.movablePart().wake()
		}
	}
}

// Shutdown finishes what is there. The listeners are closed and Serve has returned.
func (h *HTTP) Shutdown(ctx context.Context) error {
	begunAt := time.Now()
	if h.handsOver() {
		h.move()
	}
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	for h.holdsUp(begunAt) {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	h.dropFresh()
	if err := h.Server.Shutdown(ctx); err != nil {
		return err
	}
	return h.open.wait(ctx) // for hijacked ones, of which net/http knows no more
}

// drainPoll is how often a drain looks at the connections. Looking at each change would take a time that is
// quadratic in their number.
const drainPoll = 5 * time.Millisecond

// holdsUp reports whether some connection still needs the server as it is.
func (h *HTTP) holdsUp(begunAt time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for c := range h.conns {
		if now.Before(h.neededUntil(c, now, begunAt)) {
			return true
		}
	}
	return false
}

// neededUntil returns until when a connection needs the server as it is, if nothing more comes from it: after now if it
// does now. It is called with mu locked.
func (h *HTTP) neededUntil(c *httpConn, now, begunAt time.Time) time.Time {
	begun := c.own.begun()
	c.mu.Lock()
	defer c.mu.Unlock()
	forNow := now.Add(time.Nanosecond)
	toldToGo := begunAt.Add(h.drainDelay)
	switch {
	case c.state == received:
		return forNow // its handler is about to begin
	case c.state == handling && !c.told && !c.http2:
		return forNow // its client does not know, and will send another request, or it goes then
	case c.state == handling, c.state == gone:
		return now // Shutdown waits for it
	case !c.http2 && begun:
		return forNow // until it is a request, or net/http has waited for that for ReadHeaderTimeout
	case h.handsOver() && canGo(c.own):
		// It is about to go. Many take a while; what counts is that it goes on.
		return later(begunAt, h.gone).Add(max(h.drainDelay, goGrace))
	case c.state == fresh || c.arrived: // which may never have asked for anything where it comes from, either
		if !c.arrived && !c.weighed {
			c.since, c.weighed = heardAt(c.conn, c.since), true
		}
		return later(toldToGo, c.since.Add(newConnGrace))
	case c.http2 && c.told:
		return now // it got a GOAWAY or, if the handler has set something else, gets one by Shutdown: nothing is lost
	case !c.http2 && c.since.After(h.drainBegan):
		// It was answered, and not told to go: the head was written before. The next request may be on its way.
		return later(toldToGo, c.since.Add(max(h.drainDelay, newConnGrace)))
	}
	return later(toldToGo, c.since.Add(h.drainDelay))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// dropFresh closes connections that net/http takes for new, and that have still not sent a request; Shutdown would wait
// 5 s for them.
func (h *HTTP) dropFresh() {
	h.mu.Lock()
	all := slices.Collect(maps.Keys(h.conns))
	h.mu.Unlock()
	for _, c := range all {
		if c.isNew() {
			c.conn.Close()
		}
	}
}

// Unfinished implements Server.
func (h *HTTP) Unfinished() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.open.open()
	for c := range h.conns {
		if c.isIdle() {
			n--
		}
	}
	return max(n, 0) // one may be closed that has not said so yet
}
