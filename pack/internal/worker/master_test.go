//go:build unix

package worker

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// fakeMaster is the master of one worker. It fails the test for whatever the real one would kill the worker for.
type fakeMaster struct {
	t      *testing.T
	conn   *wire.Conn
	worker *net.UnixConn // the worker's end, for start
	socket net.Listener  // of every endpoint
	ran    chan error    // told what Run returns
	log    *logged

	mu      sync.Mutex
	changed sync.Cond
	state   wire.State
	said    map[wire.Type]bool
	meter   wire.Meter
	inbox   []wire.Received // what was not expected so far, but beats
	beats   int
	vitals  wire.Vitals         // the last
	ended   bool                // nothing more will be received
	onAsk   func(wire.Received) // deals with Listen in place of the usual answer
}

// limit is for what must come about.
const limit = time.Minute

func newFakeMaster(t *testing.T, conn *net.UnixConn) *fakeMaster {
	m := &fakeMaster{
		t: t, conn: wire.NewConn(conn), socket: listen(t), said: map[wire.Type]bool{},
		ran: make(chan error, 1), log: &logged{},
	}
	m.changed.L = &m.mu
	return m
}

// supervise runs a worker, which has said hello when it returns.
func supervise(t *testing.T, c Config, handles ...Handle) *fakeMaster {
	t.Helper()
	m := prepare(t, &c, handles...)
	m.start(t.Context(), c)
	m.expect(wire.Hello)
	return m
}

// prepare returns a master, and completes the configuration of its worker, which start starts.
func prepare(t *testing.T, c *Config, handles ...Handle) *fakeMaster {
	t.Helper()
	ours, theirs, err := fdmsg.Pair("control")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	m := newFakeMaster(t, ours)
	m.worker, err = fdmsg.Conn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	c.Log = slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = limit
	}
	if c.HangTimeout == 0 {
		c.HangTimeout = time.Minute
	}
	if c.Handles == nil {
		c.Handles = func() []Handle { return handles }
	}
	if c.exit == nil {
		c.exit = func(int) {}
	}
	return m
}

func (m *fakeMaster) start(ctx context.Context, c Config) {
	go func() { m.ran <- Run(ctx, c, m.worker) }()
	m.receive()
}

// receive begins to receive.
func (m *fakeMaster) receive() {
	received := make(chan struct{})
	go func() {
		defer close(received)
		for {
			r, err := m.conn.Receive()
			if err != nil {
				if !wire.Gone(err) && !wire.Interrupted(err) {
					m.t.Errorf("the worker cannot be understood: %v", err)
				}
				m.note(func() { m.ended = true })
				return
			}
			m.note(func() { m.take(r) })
		}
	}()
	m.t.Cleanup(func() {
		m.conn.Close()
		<-received
		for i := range m.inbox {
			m.inbox[i].Close()
		}
	})
}

func (m *fakeMaster) note(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
	m.changed.Broadcast()
}

// take deals with a message. It is called with mu locked.
func (m *fakeMaster) take(r wire.Received) {
	err := errors.Join(
		r.CheckFromWorker(r.Size, len(r.Files), r.Lost), wire.MaySend(r.Type, m.state, m.said),
		m.meter.Count(r.Type, m.state, time.Now()),
	)
	if err != nil {
		m.t.Errorf("the master kills the worker: %v", err)
	}
	if m.said[wire.End] {
		m.t.Errorf("the worker says %s after its end", r.Type)
	}
	m.said[r.Type] = true
	switch r.Type {
	case wire.Hello:
		m.state = max(m.state, wire.Starting)
	case wire.Ready:
		m.state = max(m.state, wire.Serving)
	case wire.Closed:
		m.state = max(m.state, wire.Closing)
	case wire.Beat:
		m.beats++
		m.vitals = *r.Vitals
		return
	case wire.Listen:
		if m.onAsk != nil {
			m.onAsk(r)
		} else if err := m.conn.Send(wire.Message{Type: wire.Socket}, m.socket.(syscall.Conn)); err != nil {
			m.t.Error(err)
		}
		return
	}
	m.inbox = append(m.inbox, r)
}

// until waits until something holds.
func (m *fakeMaster) until(what string, holds func() bool) {
	m.t.Helper()
	late := false
	defer time.AfterFunc(limit, func() { m.note(func() { late = true }) }).Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for !holds() {
		if late {
			m.t.Fatalf("%s: it does not come; state %v, inbox %v\n%s", what, m.state, m.inbox, m.log)
		}
		m.changed.Wait()
	}
}

// expect wants the next message, beats aside, to be of a type.
func (m *fakeMaster) expect(want wire.Type) (r wire.Received) {
	m.t.Helper()
	m.until(string(want), func() bool { return len(m.inbox) > 0 || m.ended })
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.inbox) == 0 {
		m.t.Fatalf("the end; want %s\n%s", want, m.log)
	}
	r, m.inbox = m.inbox[0], m.inbox[1:]
	if r.Type != want {
		m.t.Fatalf("%s (%s); want %s\n%s", r.Type, r.Error, want, m.log)
	}
	return r
}

// await waits for the first message of a type, whatever comes before.
func (m *fakeMaster) await(want wire.Type) (r wire.Received) {
	m.t.Helper()
	i := -1
	m.until(string(want), func() bool {
		i = slices.IndexFunc(m.inbox, func(r wire.Received) bool { return r.Type == want })
		return i >= 0 || m.ended
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if i < 0 {
		m.t.Fatalf("the end; want %s\n%s", want, m.log)
	}
	r = m.inbox[i]
	m.inbox = slices.Delete(m.inbox, i, i+1)
	return r
}

// tell sends a message.
func (m *fakeMaster) tell(msg wire.Message, files ...syscall.Conn) {
	m.t.Helper()
	if msg.Type == wire.Drain {
		m.note(func() { m.state = max(m.state, wire.Draining) })
	}
	if err := m.conn.Send(msg, files...); err != nil {
		m.t.Fatal(err)
	}
}

// write sends a frame.
func (m *fakeMaster) write(body string) {
	m.t.Helper()
	if err := fdmsg.Write(m.conn.UnixConn, []byte(body)); err != nil {
		m.t.Fatal(err)
	}
}

// ping wants a beat, and so knows that everything before was dealt with.
func (m *fakeMaster) ping() wire.Vitals {
	m.t.Helper()
	// The one that comes may be one that was on its way. So the answer to a second Ping is waited for, which one that
	// was on its way, and is changed, cannot be: the worker beats once in a while only.
	for range 2 {
		m.mu.Lock()
		before := m.beats
		m.mu.Unlock()
		m.tell(wire.Message{Type: wire.Ping})
		m.until("a beat", func() bool { return m.beats > before })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.vitals
}

// expectEnd wants Run to return, after the last messages of a drain.
func (m *fakeMaster) expectEnd(cut int) {
	m.t.Helper()
	m.expect(wire.Closed)
	if r := m.expect(wire.End); r.Cut != cut {
		m.t.Errorf("cut %d, want %d", r.Cut, cut)
	}
	m.expectNothing()
}

// expectNothing wants Run to return without another word.
func (m *fakeMaster) expectNothing() {
	m.t.Helper()
	select {
	case err := <-m.ran:
		if err != nil {
			m.t.Errorf("Run: %v", err)
		}
	case <-time.After(limit):
		m.t.Fatalf("Run does not return\n%s", m.log)
	}
	m.until("the end", func() bool { return m.ended })
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.inbox) > 0 {
		m.t.Errorf("the worker also said %v", m.inbox)
	}
}

// rest returns what the worker says until its end.
func (m *fakeMaster) rest() iter.Seq[wire.Received] {
	return func(yield func(wire.Received) bool) {
		m.until("the end", func() bool { return m.ended })
		for _, r := range m.inbox {
			yield(r)
			r.Close()
		}
		m.inbox = nil
		m.expectNothing()
	}
}
