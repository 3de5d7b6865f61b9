package drain

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
)

// wrappedConn is a connection as users wrap it.
type wrappedConn struct{ net.Conn }

// connKey is the key of a request's connection.
type connKey struct{}

type wrappedListener struct{ net.Listener }

func (l wrappedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return wrappedConn{c}, nil
}

// TestCloseReadWrapped ends reads of connections that are wrapped, by one who tells what it wraps and by one who does
// not.
func TestCloseReadWrapped(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tells := range []bool{true, false} {
		_, c := test.Connected(t, l)
		c = wrappedConn{c}
		if tells {
			c = track(c.(wrappedConn).Conn, new(count))
		}
		ended := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
		CloseRead(c)
		if err := <-ended; err == nil || tells && err != io.EOF {
			t.Errorf("it tells: %v; the read ended with %v", tells, err)
		}
	}
}

// TestHalfARequestWrapped has half a request be read from a connection that is wrapped, before the server is to stop:
// it is waited for.
func TestHalfARequestWrapped(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := NewHTTP(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(interface{ NetConn() net.Conn }); ok {
			if _, ok := c.NetConn().(wrappedConn); ok {
				io.WriteString(w, "wrapped")
			}
		}
	})})
	h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(wrappedListener{l}) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost:")
	waitFor(t, "what was read to be seen", func() bool { return hasBegun(h) })
	h.BeginDrain(0, false)
	l.Close()
	<-served
	stopped := make(chan error, 1)
	go func() { stopped <- h.Shutdown(t.Context()) }()
	select {
	case err := <-stopped:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(newConnGrace + 200*time.Millisecond):
	}
	io.WriteString(c, " x\r\n\r\n")
	if answer, err := io.ReadAll(c); err != nil || len(answer) < 8 || string(answer[len(answer)-7:]) != "wrapped" {
		t.Errorf("%q, %v", answer, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func hasBegun(h *HTTP) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if c.own.begun() {
			return true
		}
	}
	return false
}
