//go:build unix

package worker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

var (
	withSignals = Config{
		StopSignals: []os.Signal{syscall.SIGTERM, syscall.SIGINT}, OtherSignals: []os.Signal{syscall.SIGHUP},
	}
	finalDrain = wire.Message{Type: wire.Drain, Final: true}
)

func TestWorkerServesAndDrains(t *testing.T) {
	for name, order := range map[string]wire.Message{"final": finalDrain, "others serve": {Type: wire.Drain}} {
		t.Run(name, func(t *testing.T) {
			m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
			m.expect(wire.Ready)
			c := dial(t, m.socket)
			for range 2 {
				if err := get(c, "/"); err != nil {
					t.Fatal(err)
				}
			}
			if v := m.ping(); v.Served != 2 || v.Accepted != 1 || v.Conns != 1 || v.Probe != "" {
				t.Errorf("vitals %+v", v)
			}
			m.tell(order)
			if order.Final {
				m.expect(wire.Quiesce)
				late := dial(t, m.socket)
				m.tell(wire.Message{Type: wire.Quiesced})
				if err := get(late, "/"); err != nil {
					t.Errorf("what was queued: %v", err)
				}
			}
			m.expectEnd(0)
		})
	}
}

// TestSignalIsReported wants a worker that gets a signal to go on, and to say so once.
func TestSignalIsReported(t *testing.T) {
	m := supervise(t, withSignals, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	kill(t, syscall.SIGHUP)
	kill(t, syscall.SIGTERM)
	m.expect(wire.Stopping)
	for range 3 {
		kill(t, syscall.SIGTERM)
		kill(t, syscall.SIGINT)
		if err := get(dial(t, m.socket), "/"); err != nil {
			t.Fatal(err)
		}
	}
	m.tell(wire.Message{Type: wire.Drain})
	m.expectEnd(0)
	if n := m.log.count(slog.LevelWarn, "") + m.log.count(slog.LevelError, ""); n > 0 {
		t.Errorf("it logged\n%s", m.log)
	}
}

// TestSignalBeforeReady has the signal come while the hook runs, and then either the order to drain or none.
func TestSignalBeforeReady(t *testing.T) {
	for _, told := range []bool{true, false} {
		c, begun, proceed := withSignals, make(chan struct{}), make(chan struct{})
		c.OnStart = func(ctx context.Context) error {
			close(begun)
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-proceed:
				return nil
			}
		}
		m := supervise(t, c, Handle{Endpoint: anyPort, Server: hello()})
		<-begun
		kill(t, syscall.SIGTERM)
		m.expect(wire.Stopping)
		if !told {
			close(proceed)
			m.expect(wire.Ready)
			if err := get(dial(t, m.socket), "/"); err != nil {
				t.Error(err)
			}
		}
		m.tell(wire.Message{Type: wire.Drain})
		m.expectEnd(0)
	}
}

// TestContextIsASignal ends the context that Run is given.
func TestContextIsASignal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var c Config
	m := prepare(t, &c, Handle{Endpoint: anyPort, Server: hello()})
	m.start(ctx, c)
	m.expect(wire.Hello)
	m.expect(wire.Ready)
	cancel()
	m.expect(wire.Stopping)
	if err := get(dial(t, m.socket), "/"); err != nil {
		t.Error(err)
	}
	m.tell(wire.Message{Type: wire.Drain})
	m.expectEnd(0)
}

// TestMasterGone wants what is queued to be served, and the sockets to be closed before the hook is called: whoever
// starts the pack anew waits for that.
func TestMasterGone(t *testing.T) {
	blocked, release := make(chan struct{}), make(chan struct{})
	c := Config{OnShutdown: func(context.Context) { close(blocked); <-release }}
	other := listen(t)
	m := supervise(t, c, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	m.tell(wire.Message{Type: wire.Cover, Endpoint: &anyPort, Socket: 1}, other.(syscall.Conn))
	m.ping()
	queued := []net.Conn{dial(t, m.socket), dial(t, other)}
	m.conn.Close()
	for _, c := range queued {
		if err := get(c, "/"); err != nil {
			t.Error(err)
		}
	}
	<-blocked
	for _, l := range []net.Listener{m.socket, other} {
		dial(t, l)
		if c, err := l.Accept(); err != nil { // by this copy, which is the last
			t.Error(err)
		} else {
			c.Close()
		}
	}
	close(release)
	m.expectNothing()
	if m.log.count(slog.LevelWarn, "the master is gone") != 1 {
		t.Errorf("it logged\n%s", m.log)
	}
}

// TestSocketStays has a worker end whose socket goes on without it: it leaves that as it was, for who serves it next.
func TestSocketStays(t *testing.T) {
	for name, tt := range map[string]struct {
		socket wire.Message
		end    func(m *fakeMaster)
	}{
		"the master is gone": {wire.Message{Type: wire.Socket, Kept: true}, func(m *fakeMaster) {
			m.conn.Close()
			m.expectNothing()
		}},
		"the pack stops": {wire.Message{Type: wire.Socket, Given: true}, func(m *fakeMaster) {
			m.tell(wire.Message{Type: wire.Drain, Final: true})
			m.expectEnd(0) // without a word of what is queued
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir() + "/socket"
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var c Config
			m := prepare(t, &c, Handle{Endpoint: wire.Endpoint{Network: "unix", Address: path}, Server: hello()})
			m.onAsk = func(wire.Received) { m.conn.Send(tt.socket, l.(syscall.Conn)) }
			m.start(t.Context(), c)
			m.expect(wire.Hello)
			m.expect(wire.Ready)
			tt.end(m)
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			next, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			next.Close()
		})
	}
}

// TestMasterGoneEndsInTime has a hook hold the worker up.
func TestMasterGoneEndsInTime(t *testing.T) {
	exited := make(chan int)
	c := Config{ShutdownTimeout: 50 * time.Millisecond, exit: func(status int) { exited <- status }}
	c.OnShutdown = func(context.Context) {
		if status := <-exited; status != 1 {
			t.Errorf("exit with %d", status)
		}
	}
	m := supervise(t, c, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	m.conn.Close()
	m.expectNothing()
}

// TestMasterTalksNonsense wants everything to go on.
func TestMasterTalksNonsense(t *testing.T) {
	m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	for _, nonsense := range []string{
		"", "{", "[]", `{"type":""}`, `{"type":"sing"}`, `{"type":"cover"}`, `{"type":"handover"}`, `{"type":"board"}`,
	} {
		m.write(nonsense)
	}
	m.tell(wire.Message{Type: wire.Socket}, m.socket.(syscall.Conn)) // nobody asked
	m.tell(wire.Message{Type: wire.Quiesced})
	m.ping()
	if err := get(dial(t, m.socket), "/"); err != nil {
		t.Error(err)
	}
	m.tell(wire.Message{Type: wire.Drain})
	m.expectEnd(0)
	if n := m.log.count(slog.LevelError, ""); n != 1 {
		t.Errorf("%d errors are logged\n%s", n, m.log)
	}
}

// TestStreamIsBroken is about what cannot be gone on from.
func TestStreamIsBroken(t *testing.T) {
	m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	m.conn.Write([]byte{0xff, 0xff, 0xff, 0xff})
	m.expectNothing()
	if m.log.count(slog.LevelError, "cannot be received") != 1 {
		t.Errorf("it logged\n%s", m.log)
	}
}

// TestLongTexts has a probe and a hook fail at length.
func TestLongTexts(t *testing.T) {
	long := errors.New(strings.Repeat("\x01é<", 70<<10/4))
	c := Config{Probe: func(context.Context) error { return long }, HangTimeout: 100 * time.Millisecond}
	m := supervise(t, c, Handle{Endpoint: anyPort, Server: hello()})
	m.expect(wire.Ready)
	m.until("a probe that fails", func() bool { return len(m.vitals.Probe) > wire.MaxText-10 })
	m.tell(wire.Message{Type: wire.Drain})
	m.expectEnd(0)

	m = supervise(t, Config{OnStart: func(context.Context) error { return long }})
	if r := m.expect(wire.Failed); len(r.Error) < wire.MaxText-10 {
		t.Errorf("the error has %d bytes", len(r.Error))
	}
	m.expectNothing()
}
