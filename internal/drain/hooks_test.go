//go:build linux

package drain

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestRegisterOnShutdown has event streams end by what their server was told to call when it shuts down, which it must
// when the drain begins, and once.
func TestRegisterOnShutdown(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			var calls atomic.Int64
			over := make(chan struct{})
			s := serve(t, kind, func(srv *http.Server) {
				srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.WriteString(w, "hello\n")
					w.(http.Flusher).Flush()
					<-over
					io.WriteString(w, "bye\n")
				})
				srv.RegisterOnShutdown(func() {
					if calls.Add(1) == 1 {
						close(over)
					}
				})
			})
			s.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(s.reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			events := bufio.NewReader(resp.Body)
			if line, err := events.ReadString('\n'); line != "hello\n" {
				t.Fatalf("%q, %v", line, err)
			}
			s.BeginDrain(0, false)
			<-over // the socket is not closed yet
			s.BeginDrain(0, false)
			if err := <-s.drain(t.Context()); err != nil {
				t.Error(err)
			}
			if line, err := events.ReadString('\n'); line != "bye\n" {
				t.Errorf("%q, %v", line, err)
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("it was called %d times", n)
			}
		})
	}
}

// TestRegisterOnShutdownHTTP2 has an HTTP/2 connection go on when a stream on it has ended so: it gets its GOAWAY with
// the next answer, or at the end of the drain.
func TestRegisterOnShutdownHTTP2(t *testing.T) {
	over := make(chan struct{})
	s := serve(t, "tls 1.3", func(srv *http.Server) {
		srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Proto)
			if r.URL.Path == "/events" {
				w.(http.Flusher).Flush()
				<-over
			}
		})
		srv.RegisterOnShutdown(func() { close(over) })
	})
	s.client.Close()
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	get := func(path string) (resp *http.Response, reused bool) {
		t.Helper()
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
		ctx := httptrace.WithClientTrace(t.Context(), trace)
		r, err := http.NewRequestWithContext(ctx, "GET", "https://"+s.socket.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err = tr.RoundTrip(r); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp, reused
	}
	events, _ := get("/events")
	s.BeginDrain(0, false)
	if text, err := io.ReadAll(events.Body); string(text) != "HTTP/2.0" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	next, reused := get("/")
	if text, err := io.ReadAll(next.Body); string(text) != "HTTP/2.0" || err != nil || !reused {
		t.Errorf("%q, %v, on the connection that was there: %v", text, err, reused)
	}
	if err := <-s.drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTakeHooks tells what users have registered from what HTTP/2 has. If it fails with a new version of Go, look at
// where net/http keeps them now.
func TestTakeHooks(t *testing.T) {
	legacy := &http.Server{}
	//lint:ignore SA1019 users have it
	if err := http2.ConfigureServer(legacy, nil); err != nil {
		t.Fatal(err)
	}
	secure := serve(t, "tls 1.3", nil).Server
	for name, srv := range map[string]*http.Server{"plain": {}, "net/http's HTTP/2": secure, "x/net's": legacy} {
		hooks, _ := field[[]func()](srv, "onShutdown")
		before := len(*hooks)
		called := make(chan struct{}, 1)
		srv.RegisterOnShutdown(func() { called <- struct{}{} })
		srv.RegisterOnShutdown(new(http.Transport).CloseIdleConnections)
		if taken := takeHooks(srv); len(taken) != 2 || len(*hooks) != before {
			t.Errorf("%s: of %d and two of its user's %d were taken", name, before, len(taken))
		} else {
			taken[0]()
			<-called
		}
		if again := takeHooks(srv); len(again) != 0 {
			t.Errorf("%s: %d are there again", name, len(again))
		}
		if srv == secure && before == 0 {
			t.Error("net/http's HTTP/2 has registered nothing")
		}
	}
	within := make(chan struct{})
	own := &http.Server{}
	own.RegisterOnShutdown(func() { close(within) })
	Foreign(&stops{own}).BeginDrain(time.Hour, false)
	<-within
	later := make(chan struct{})
	secure.RegisterOnShutdown(func() { close(later) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	secure.Shutdown(ctx)
	<-later
}
