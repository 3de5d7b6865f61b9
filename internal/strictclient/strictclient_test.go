package strictclient_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestCounts(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, body)
	}))
	defer srv.Close()
	for _, tt := range []struct {
		load  strictclient.Load
		conns int
		body  string
	}{
		{strictclient.Load{}, 40, "GET"},
		{strictclient.Load{KeepAlive: true}, 4, "GET"},
		{strictclient.Load{KeepAlive: true, Body: "x", Pause: time.Millisecond}, 4, "POST x"},
	} {
		tt.load.Network, tt.load.Address = "tcp", srv.Listener.Addr().String()
		tt.load.Clients, tt.load.PerClient = 4, 10
		r := tt.load.Run(t.Context())
		if r.Requests != 40 || r.Conns != tt.conns || r.Failed() != 0 || r.Bodies[tt.body] != 40 {
			t.Errorf("%v %v; want 40 of %q on %d connections", r, r.Bodies, tt.body, tt.conns)
		}
	}
}

// TestEveryFailureCounts meets a server that fails in every way.
func TestEveryFailureCounts(t *testing.T) {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepted atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1000))
			switch accepted.Add(1) {
			case 1:
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
			case 2:
				c.(*net.TCPConn).SetLinger(0)
			case 3:
				io.WriteString(c, "HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n")
			case 4: // nothing
			case 5:
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				l.Close()
			}
			c.Close()
		}
	}()
	load := strictclient.Load{Network: "tcp", Address: l.Addr().String(), Clients: 1, PerClient: 6, KeepAlive: true}
	r := load.Run(t.Context())
	if r.Requests != 1 || r.Failed() != 5 || len(r.Samples) != 5 {
		t.Errorf("%v; want one answer and five failures", r)
	}
	for _, kind := range []string{
		"new connection, body: closed without an answer", "new connection, response: connection reset by peer",
		"new connection, status: status 503", "new connection, response: closed without an answer",
	} {
		if r.Failures[kind] != 1 {
			t.Errorf("%v; want one %q", r.Failures, kind)
		}
	}
}

// TestTimeout has a server that accepts nothing, and a deadline that is over at once: either is the same failure.
func TestTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for timeout, kind := range map[time.Duration]string{
		100 * time.Millisecond: "new connection, response: timeout", time.Nanosecond: "connect: timeout",
	} {
		load := strictclient.Load{Network: "tcp", Address: l.Addr().String(), Clients: 1, PerClient: 1, Timeout: timeout}
		if r := load.Run(t.Context()); r.Failures[kind] != 1 {
			t.Errorf("after %v: %v; want %q", timeout, r, kind)
		}
	}
}
