//go:build linux

package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
)

// TestToldWhateverTheHandlerSays has handlers say that connections are kept, in a drain: clients must learn that they
// are not. HTTP/1.0 has no other way of keeping one.
func TestToldWhateverTheHandlerSays(t *testing.T) {
	for _, kind := range kinds {
		for _, path := range []string{"/plain", "/flushed", "/large"} {
			s := serve(t, kind, func(srv *http.Server) {
				srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Connection", "keep-alive")
					if r.URL.Path == "/flushed" {
						http.NewResponseController(w).Flush()
					}
					if r.URL.Path == "/large" {
						w.Header().Set("X", strings.Repeat("x", 10000))
					}
					io.WriteString(w, "1:")
				})
			})
			ask := "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"
			s.write(ask)
			if s.answered() {
				t.Fatal("it is closed before the drain")
			}
			s.BeginDrain(time.Hour, false)
			s.write(ask)
			if !s.answered() {
				t.Errorf("%s, %s: the client is told that it is kept", kind, path)
			}
		}
	}
	s := serve(t, "plain", nil)
	s.BeginDrain(time.Hour, false)
	s.write("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	if !s.answered() {
		t.Error("HTTP/1.0: the client is told that it is kept")
	}
}

// TestToldHTTP2 has the handlers of HTTP/2 say that a connection is kept, and a client that keeps it busy.
func TestToldHTTP2(t *testing.T) {
	for _, kind := range []string{"plain", "tls 1.3"} {
		s := serve(t, kind, func(srv *http.Server) {
			if kind == "plain" {
				srv.Protocols = new(http.Protocols)
				srv.Protocols.SetUnencryptedHTTP2(true)
			} else {
				srv.TLSConfig = &tls.Config{NextProtos: []string{"h2"}}
			}
			srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "keep-alive")
			})
		})
		tr := &http.Transport{TLSClientConfig: s.tls, Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP2(true)
		tr.Protocols.SetUnencryptedHTTP2(true)
		client := http.Client{Transport: tr}
		url := map[bool]string{true: "http://", false: "https://"}[s.tls == nil] + s.socket.Addr().String()
		ask := func() error {
			resp, err := client.Post(url, "", nil)
			if err != nil {
				return err
			}
			if resp.ProtoMajor != 2 {
				t.Error(resp.Proto)
			}
			return resp.Body.Close()
		}
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		s.client.Close()
		waitFor(t, "the end of the other client", func() bool { return s.Open() == 1 })
		s.BeginDrain(time.Hour, false)
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the end of its handler", func() bool { return s.handlers() == 0 })
		if s.holdsUp(time.Now()) {
			t.Errorf("%s: the drain is held up", kind)
		}
		s.socket.Close()
		<-s.ended
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		drained := make(chan error, 1)
		go func() { drained <- s.Shutdown(ctx) }()
		for {
			if err := ask(); err != nil {
				if dial, ok := errors.AsType[*net.OpError](err); !ok || dial.Op != "dial" {
					t.Errorf("%s: %v; want none but that it cannot connect again", kind, err)
				}
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := <-drained; err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		tr.CloseIdleConnections()
	}
}

// TestToldInTheEnd has a handler begin before the drain, and answer in it.
func TestToldInTheEnd(t *testing.T) {
	for _, kind := range kinds {
		answer := make(chan struct{})
		s := serve(t, kind, func(srv *http.Server) {
			srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-answer
				io.WriteString(w, "1:")
			})
		})
		s.write(request)
		waitFor(t, "its handler", func() bool { return s.handlers() == 1 })
		drained := s.drain(t.Context())
		close(answer)
		if !s.answered() {
			t.Errorf("%s: the client is told that it is kept", kind)
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}
	}
}

// TestNotTold has a response end in a drain whose client could not be told, since the head was written before. Its next
// request is answered.
func TestNotTold(t *testing.T) {
	for _, kind := range kinds {
		answer := make(chan struct{})
		s := serve(t, kind, func(srv *http.Server) {
			srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.NewResponseController(w).Flush()
				<-answer
				io.WriteString(w, "1:")
			})
		})
		s.write(request)
		if _, err := s.reader.Peek(1); err != nil {
			t.Fatal(err)
		}
		drained := s.drain(t.Context())
		close(answer)
		if s.answered() {
			t.Errorf("%s: the head that was written says that it is the last", kind)
		}
		waitFor(t, "the server to wait for the next request", func() bool { return s.handlers() == 0 })
		if !s.holdsUp(time.Now()) {
			t.Errorf("%s: its client's next request is not waited for", kind)
		}
		s.write(request)
		if !s.answered() {
			t.Errorf("%s: the client is told that it is kept", kind)
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}
	}
}

// TestOptionsOfServer asks for what net/http answers by itself, unless it is told not to.
func TestOptionsOfServer(t *testing.T) {
	for _, kind := range kinds {
		for _, disabled := range []bool{false, true} {
			s := serve(t, kind, func(srv *http.Server) {
				srv.DisableGeneralOptionsHandler = disabled
				srv.Handler = http.NotFoundHandler()
			})
			ask := func(closes bool) {
				s.write("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
				resp, err := http.ReadResponse(s.reader, nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				if want := map[bool]int{false: 200, true: 404}[disabled]; resp.StatusCode != want || resp.Close != closes {
					t.Errorf("%s: %s, closes %v; want %d, %v", kind, resp.Status, resp.Close, want, closes)
				}
			}
			ask(false)
			s.BeginDrain(time.Hour, false)
			ask(true)
		}
	}
}

// TestSwitchesProtocols has a proxy switch protocols in a drain: beside "Upgrade" the response must not say "close".
func TestSwitchesProtocols(t *testing.T) {
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		io.Copy(c, rw)
	}))
	defer behind.Close()
	to, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		s := serve(t, kind, func(srv *http.Server) { srv.Handler = httputil.NewSingleHostReverseProxy(to) })
		waitFor(t, "the client", func() bool { return s.Open() == 1 })
		drained := s.drain(t.Context())
		s.write("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		resp, err := http.ReadResponse(s.reader, nil)
		if err != nil || resp.StatusCode != 101 || fmt.Sprint(resp.Header["Connection"]) != "[Upgrade]" {
			t.Fatalf("%s: %v, %v", kind, resp, err)
		}
		s.write("hello")
		got := make([]byte, 5)
		if _, err := io.ReadFull(s.reader, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", kind, got, err)
		}
		s.client.Close()
		if err := <-drained; err != nil {
			t.Error(err)
		}
	}
}

// TestUnfinished has a drain end too early for one connection of two: the other has no request, and is not cut.
func TestUnfinished(t *testing.T) {
	for _, kind := range kinds {
		s := serve(t, kind, func(srv *http.Server) {
			srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Host == "slow" {
					<-r.Context().Done()
				}
				io.WriteString(w, "1:")
			})
		})
		s.write(request)
		s.answered()
		waitFor(t, "the end of its handler", func() bool { return s.Unfinished() == 0 })
		busy := s.dial()
		io.WriteString(busy, "GET / HTTP/1.1\r\nHost: slow\r\n\r\n")
		waitFor(t, "its handler", func() bool { return s.handlers() == 1 && s.Open() == 2 })
		ctx, cancel := context.WithCancel(t.Context())
		drained := s.drain(ctx)
		cancel()
		if err := <-drained; !errors.Is(err, context.Canceled) || s.Unfinished() != 1 || s.Open() != 2 {
			t.Errorf("%s: %v, %d unfinished, %d open; want 1 of 2", kind, err, s.Unfinished(), s.Open())
		}
	}
}

// TestOwnProtocol drains a server with a connection of a protocol of the user's own, which nobody tells of.
func TestOwnProtocol(t *testing.T) {
	s := serve(t, "tls 1.3", func(srv *http.Server) {
		srv.TLSConfig = &tls.Config{NextProtos: []string{"own"}}
		srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
			"own": func(_ *http.Server, c *tls.Conn, _ http.Handler) { io.Copy(c, c) },
		}
	})
	s.write("a")
	echoes := func() error {
		_, err := io.ReadFull(s.reader, make([]byte, 1))
		return err
	}
	if err := echoes(); err != nil {
		t.Fatal(err)
	}
	drained := s.drain(t.Context())
	select {
	case err := <-drained:
		t.Fatalf("it is not waited for: %v", err)
	case <-time.After(newConnGrace + 500*time.Millisecond):
	}
	s.write("b")
	if err := echoes(); err != nil {
		t.Error(err)
	}
	s.client.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestListenerDoesTLS has a listener of the user's do TLS: to net/http it must be that.
func TestListenerDoesTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{test.SelfSigned(t)}, NextProtos: []string{"h2", "http/1.1"},
	}
	h := NewHTTP(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, r.TLS != nil)
	})})
	served := make(chan error, 1)
	go func() { served <- h.Serve(tls.NewListener(l, config)) }()
	for _, http2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: http2}
		client := http.Client{Transport: tr}
		resp, err := client.Get("https://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := map[bool]string{false: "HTTP/1.1true", true: "HTTP/2.0true"}[http2]; string(body) != want || err != nil {
			t.Errorf("%q, %v; want %q", body, err, want)
		}
		if n := h.Open(); n != 1 {
			t.Errorf("%d connections are open, want 1", n)
		}
		tr.CloseIdleConnections()
		waitFor(t, "its end", func() bool { return h.Open() == 0 })
	}
	h.BeginDrain(0, false)
	l.Close()
	<-served
	if err := h.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
