//go:build unix

package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestFailures wants what goes wrong to be told once, in words that help.
func TestFailures(t *testing.T) {
	long := wire.Endpoint{Network: "tcp", Address: strings.Repeat("x", 600)}
	for name, test := range map[string]struct {
		config  Config
		handles []Handle
		ask     func(*fakeMaster)
		want    string
	}{
		"hook": {
			config: Config{OnStart: func(context.Context) error { return io.ErrClosedPipe }},
			want:   "OnWorkerStart: io: read/write on closed pipe",
		},
		"nothing": {want: "there is nothing to serve: call Handle before Run"},
		"nil":     {handles: []Handle{{Endpoint: anyPort, Server: nil}}, want: "the server for tcp 127.0.0.1:0 is nil"},
		"refused": {
			handles: []Handle{{Endpoint: anyPort, Server: hello()}}, want: "not this one",
			ask: func(m *fakeMaster) { m.tell(wire.Message{Type: wire.Refused, Error: "not this one"}) },
		},
		"no descriptor": {
			handles: []Handle{{Endpoint: anyPort, Server: hello()}}, want: "the master sent 0 descriptors for tcp 127.0.0.1:0",
			ask: func(m *fakeMaster) { m.tell(wire.Message{Type: wire.Socket}) },
		},
		"endpoint": {handles: []Handle{{Endpoint: long, Server: hello()}}, want: "ask the master for"},
		"serve": {
			handles: []Handle{{Endpoint: anyPort, Server: drain.Foreign(&foreign{serve: func(net.Listener) error { return nil }})}},
			want:    "the server for tcp 127.0.0.1:0 stopped serving: its Serve returned nil",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := prepare(t, &test.config, test.handles...)
			if test.ask != nil {
				m.onAsk = func(wire.Received) { go test.ask(m) }
			}
			m.start(t.Context(), test.config)
			m.expect(wire.Hello)
			if r := m.expect(wire.Failed); !strings.HasPrefix(r.Error, test.want) {
				t.Errorf("%q, want %q", r.Error, test.want)
			}
			m.expectNothing()
		})
	}
}

// TestServerBreaks has a server return while others serve. The master has the worker drain, or does not.
func TestServerBreaks(t *testing.T) {
	for _, told := range []bool{true, false} {
		breaks := make(chan struct{})
		broken := &foreign{serve: func(l net.Listener) error {
			go l.Accept()
			<-breaks
			return errors.New("oops")
		}}
		second := wire.Endpoint{Network: "tcp", Index: 1}
		m := supervise(t, Config{}, Handle{Endpoint: anyPort, Server: hello()}, Handle{Endpoint: second, Server: drain.Foreign(broken)})
		m.expect(wire.Ready)
		other := listen(t)
		m.tell(wire.Message{Type: wire.Cover, Endpoint: &anyPort, Socket: 3}, other.(syscall.Conn))
		if err := get(dial(t, other), "/"); err != nil {
			t.Error(err)
		}
		close(breaks)
		if r := m.expect(wire.Failed); !strings.HasSuffix(r.Error, "stopped serving: oops") {
			t.Errorf("failed: %q", r.Error)
		}
		if told {
			m.tell(wire.Message{Type: wire.Drain})
			m.expectEnd(0)
			continue
		}
		if r := m.expect(wire.Covered); r.Socket != 3 || r.Error == "" {
			t.Errorf("covered: %+v", r.Message)
		}
		m.expectNothing()
	}
}
