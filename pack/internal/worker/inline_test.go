//go:build unix

package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestInline serves without a master, until a signal.
func TestInline(t *testing.T) {
	socket := listen(t)
	c := withSignals
	c.Log, c.ShutdownTimeout = slog.New(slog.DiscardHandler), limit
	c.Handles = func() []Handle { return []Handle{{Endpoint: anyPort, Server: hello()}} }
	var queued net.Conn
	quiesced := make(chan error, 1)
	cut, err := RunInline(t.Context(), c,
		func(_ context.Context, e wire.Endpoint, _ bool) (io.Closer, error) {
			if e != anyPort {
				t.Errorf("it asks for %v", e)
			}
			return copyOf(t, socket), nil
		},
		func() error {
			queued = dial(t, socket)
			go func() { quiesced <- get(queued, "/") }()
			return errors.New("no filter")
		},
		func() {
			if err := get(dial(t, socket), "/"); err != nil {
				t.Error(err)
			}
			kill(t, syscall.SIGHUP)
			kill(t, syscall.SIGTERM)
		})
	if cut != 0 || err != nil {
		t.Errorf("cut %d, error %v", cut, err)
	}
	if err := <-quiesced; err != nil {
		t.Errorf("what was queued: %v", err)
	}
}

// TestInlineFails has no socket.
func TestInlineFails(t *testing.T) {
	c := Config{Log: slog.New(slog.DiscardHandler), ShutdownTimeout: limit}
	c.Handles = func() []Handle { return []Handle{{Endpoint: anyPort, Server: hello()}} }
	refuse := func(context.Context, wire.Endpoint, bool) (io.Closer, error) { return nil, os.ErrPermission }
	_, err := RunInline(t.Context(), c, refuse, func() error { return nil }, func() { t.Error("it is up") })
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v", err)
	}
}

// TestInlineCuts has a connection not end.
func TestInlineCuts(t *testing.T) {
	socket := listen(t)
	accepted := make(chan net.Conn, 1)
	strange := drain.Foreign(&foreign{serve: func(l net.Listener) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			accepted <- c
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	c := Config{Log: slog.New(slog.DiscardHandler), ShutdownTimeout: 200 * time.Millisecond}
	c.Handles = func() []Handle { return []Handle{{Endpoint: anyPort, Server: strange}} }
	listens := func(context.Context, wire.Endpoint, bool) (io.Closer, error) { return copyOf(t, socket), nil }
	cut, err := RunInline(ctx, c, listens, func() error { return nil }, func() {
		dial(t, socket)
		go func() {
			c := <-accepted
			t.Cleanup(func() { c.Close() })
			cancel()
		}()
	})
	if cut != 1 || err != nil {
		t.Errorf("cut %d, error %v", cut, err)
	}
}
