//go:build linux

package drain

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestFramingField puts a field into the head of a response that comes in every possible pair of parts.
func TestFramingField(t *testing.T) {
	const (
		get   = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		ok    = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		other = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n2\r\nok\r\n0\r\n\r\n"
		goOn  = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
	)
	for _, tt := range []struct {
		asked     int
		responses string
	}{{1, ok}, {1, other}, {1, goOn + ok}, {2, ok + other}} {
		for i := range len(tt.responses) {
			var f framing
			f.request([]byte(strings.Repeat(get, tt.asked)))
			var said []byte
			for _, part := range []string{tt.responses[:i], tt.responses[i:]} {
				b := []byte(part)
				if at := f.response(b); at > 0 {
					b = slices.Insert(b, at, []byte(closeField)...)
				}
				said = append(said, b...)
			}
			// Where the end of the head comes in two parts, there is no place for it.
			head := strings.LastIndex(tt.responses, "\r\n\r\n")
			if strings.HasSuffix(tt.responses, "0\r\n\r\n") {
				head = strings.LastIndex(tt.responses[:head], "\r\n\r\n")
			}
			wants := i <= head+1 || i > head+3
			r := bufio.NewReader(bytes.NewReader(said))
			for n := range tt.asked + strings.Count(tt.responses, goOn) {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("%q: %v", said, err)
				}
				body, err := io.ReadAll(resp.Body)
				if want := map[bool]string{true: "ok"}[resp.StatusCode == 200]; string(body) != want || err != nil {
					t.Errorf("%q: %q, %v", said, body, err)
				}
				last := n == tt.asked+strings.Count(tt.responses, goOn)-1
				if resp.Close != (last && wants) {
					t.Errorf("after %d bytes: %q: response %d closes: %v", i, said, n, resp.Close)
				}
			}
		}
	}
}

// unknown returns a server of which nothing is known, with a listener.
func unknown(t *testing.T, handler http.HandlerFunc) (*foreign, net.Listener, <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := theirs(&http.Server{Handler: handler}).(*foreign)
	served := make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	t.Cleanup(func() { f.Close() })
	return f, l, served
}

// TestForeignTells has the clients of a server that knows nothing of a drain be told that a response is the last,
// whatever the server says of it, and the connection be ended then.
func TestForeignTells(t *testing.T) {
	for _, handOver := range []bool{false, true} { // the listener's connections cannot go
		f, l, served := unknown(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/flushed":
				w.Header().Set("Connection", "keep-alive")
				http.NewResponseController(w).Flush()
			case "/large":
				io.WriteString(w, strings.Repeat("x", 100000))
			case "/none":
				w.WriteHeader(http.StatusNoContent)
				return
			}
			io.WriteString(w, "ok")
		})
		type client struct {
			net.Conn
			r    *bufio.Reader
			path string
		}
		ask := func(c client) (closes bool) {
			io.WriteString(c, "GET "+c.path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatalf("%s: %v", c.path, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || c.path != "/none" && !bytes.HasSuffix(body, []byte("ok")) {
				t.Errorf("%s: %q, %v", c.path, body, err)
			}
			return resp.Close
		}
		var clients []client
		for _, path := range []string{"/", "/flushed", "/large", "/none"} {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			clients = append(clients, client{c, bufio.NewReader(c), path})
			if ask(clients[len(clients)-1]) {
				t.Errorf("%s: told before the drain", path)
			}
		}
		f.BeginDrain(time.Hour, handOver)
		for _, c := range clients {
			if !ask(c) {
				t.Errorf("%s: not told", c.path)
			}
			if _, err := c.r.ReadByte(); err != io.EOF {
				t.Errorf("%s: after the last response: %v", c.path, err)
			}
		}
		l.Close()
		<-served
		if err := f.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestForeignNotTold has a response end in a drain whose head was written before. The client's next request is answered.
func TestForeignNotTold(t *testing.T) {
	answer := make(chan struct{})
	f, l, served := unknown(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		<-answer
		io.WriteString(w, "ok")
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	ask := func() { io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }
	ask()
	if _, err := r.Peek(1); err != nil {
		t.Fatal(err)
	}
	f.BeginDrain(0, false)
	l.Close()
	<-served
	drained := make(chan error, 1)
	go func() { drained <- f.Shutdown(t.Context()) }()
	close(answer)
	for _, last := range []bool{false, true} {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "ok" || err != nil || resp.Close != last {
			t.Errorf("%q, %v, closes %v; want %v", body, err, resp.Close, last)
		}
		if !last {
			waitFor(t, "the server to wait for the next request", func() bool { return f.Unfinished() == 0 })
			if f.number((*guest).isUntold) == 0 {
				t.Error("its client's next request is not waited for")
			}
		}
		ask()
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestForeignEndsBusy stops a server whose clients keep it busy, and do not send anything twice.
func TestForeignEndsBusy(t *testing.T) {
	f, l, served := unknown(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			http.NewResponseController(w).Flush()
		}
		time.Sleep(5 * time.Millisecond)
		io.WriteString(w, "ok")
	})
	var clients sync.WaitGroup
	var answered atomic.Int64
	for n := range 16 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			r := bufio.NewReader(c)
			for {
				io.WriteString(c, []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /begun HTTP/1.1\r\nHost: x\r\n\r\n"}[n%2])
				resp, err := http.ReadResponse(r, nil)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
				}
				if err != nil {
					t.Error(err)
					return
				}
				answered.Add(1)
				if resp.Close {
					return
				}
			}
		})
	}
	waitFor(t, "some answers", func() bool { return answered.Load() > 100 })
	f.BeginDrain(time.Minute, false) // some may just not have asked
	l.Close()
	<-served
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := f.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	clients.Wait()
}

// TestForeignIsNeverQuiet stops a server of which at no time no client waits for an answer.
func TestForeignIsNeverQuiet(t *testing.T) {
	own := &cutter{proceed: make(chan struct{})}
	s := Foreign(own)
	l, first, served := servedAt(t, s)
	second, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	asked := func() int { return s.(*foreign).number((*guest).isAsked) }
	var answered atomic.Int64
	for _, c := range []net.Conn{first, second} {
		go func() {
			for {
				io.WriteString(c, "x\n")
				if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
					return
				}
				answered.Add(1)
			}
		}()
	}
	waitFor(t, "both requests", func() bool { return asked() == 2 })
	l.Close()
	<-served
	s.BeginDrain(0, false)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	for n := int64(0); ; n++ {
		waitFor(t, "both requests", func() bool { return answered.Load() == n && asked() == 2 || len(done) > 0 })
		select {
		case own.proceed <- struct{}{}:
		case err := <-done:
			if err != nil {
				t.Errorf("it is not done in time: %v", err)
			}
			return
		}
	}
}
