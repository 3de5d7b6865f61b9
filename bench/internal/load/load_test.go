//go:build linux

package load

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	api "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gopherpack/gopherpack/bench/internal/answers"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// loaded has clients load a server for a moment; for a longer one, after what is to be done before, if nobody was
// answered.
func loaded(t *testing.T, s Spec, before ...func()) (r Result, err error) {
	t.Helper()
	for moment := 200 * time.Millisecond; moment < time.Minute; moment *= 4 {
		for _, do := range before {
			do()
		}
		if r, err = loadedFor(t, s, moment); err != nil || r.Requests+r.Failed+r.Waiting > 0 {
			break
		}
	}
	return r, err
}

// loadedFor has clients load a server, as a program of clients does it.
func loadedFor(t *testing.T, s Spec, moment time.Duration) (r Result, err error) {
	t.Helper()
	orders, in := io.Pipe()
	out, told := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := Main(orders, told)
		told.CloseWithError(err)
		ended <- err
	}()
	defer in.Close()
	write := json.NewEncoder(in)
	if err := write.Encode(s); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil {
		return r, <-ended
	}
	now := time.Now()
	if err := write.Encode(Window{Begin: now, End: now.Add(moment)}); err != nil {
		t.Fatal(err)
	}
	json.NewDecoder(out).Decode(&r)
	return r, <-ended
}

func answer(w http.ResponseWriter, r *http.Request) {
	body, ok := answers.Body(r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// TestEveryLoad loads a server in each way.
func TestEveryLoad(t *testing.T) {
	var opened atomic.Int64
	start := func(begin func(*httptest.Server)) string {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(answer))
		srv.EnableHTTP2 = true
		srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				opened.Add(1)
			}
		}
		begin(srv)
		t.Cleanup(srv.Close)
		return srv.Listener.Addr().String()
	}
	plain, secure := start((*httptest.Server).Start), start((*httptest.Server).StartTLS)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls := grpc.NewServer()
	api.RegisterHealthServer(calls, health.NewServer())
	go calls.Serve(l)
	t.Cleanup(calls.Stop)

	for _, tt := range []struct {
		name string
		Spec
	}{
		{"kept", Spec{Protocol: HTTP1, Path: "/hello", Keep: true}},
		{"new", Spec{Protocol: HTTP1, Path: "/hello"}},
		{"JSON", Spec{Protocol: HTTP1, Path: "/json", Keep: true}},
		{"1 KB, new", Spec{Protocol: HTTP1, Path: "/1k"}},
		{"1 MB", Spec{Protocol: HTTP1, Path: "/1m", Keep: true}},
		{"by process", Spec{Protocol: HTTP1, Path: "/pid", Keep: true}},
		{"TLS", Spec{Protocol: HTTP1, Path: "/hello", Secure: true}},
		{"TLS, resumed", Spec{Protocol: HTTP1, Path: "/hello", Secure: true, Resume: true}},
		{"HTTP/2", Spec{Protocol: HTTP2, Path: "/1k", Secure: true, Streams: 3}},
		{"gRPC", Spec{Protocol: GRPC, Streams: 3}},
		{"beside slow ones", Spec{Protocol: HTTP1, Path: "/hello", Keep: true, Slow: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.Address, tt.Clients = plain, 2
			if tt.Secure {
				tt.Address = secure
			}
			if tt.Protocol == GRPC {
				tt.Address = l.Addr().String()
			}
			r, err := loaded(t, tt.Spec, func() { opened.Store(0) })
			if err != nil {
				t.Fatal(err)
			}
			if r.Requests == 0 || r.All < r.Requests || r.Took == nil || r.Opened != 0 || r.Failed+r.Waiting != 0 {
				t.Errorf("%d requests, %d connections opened, %d failed, %d waiting", r.Requests, r.Opened, r.Failed, r.Waiting)
			}
			few := tt.Keep || tt.Protocol == HTTP2
			if n := opened.Load(); tt.Protocol != GRPC && (n == int64(tt.Clients+tt.Slow)) != few {
				t.Errorf("%d connections; they are kept: %v", n, few)
			}
			wantHandshakes := tt.Secure && tt.Protocol == HTTP1
			if (r.Handshakes > 0) != wantHandshakes || tt.Resume && r.Resumed != r.Handshakes || !tt.Resume && r.Resumed != 0 {
				t.Errorf("%d handshakes, %d of them resumed", r.Handshakes, r.Resumed)
			}
			own := strings.TrimSpace(string(answers.PID))
			if tt.Path == "/pid" && (r.ByPID[own] < r.Requests || r.HeldBy[own] != 2) {
				t.Errorf("of %d requests this process answered %v, and holds %v", r.Requests, r.ByPID, r.HeldBy)
			}
		})
	}
}

// TestWrongAnswers has servers that do not answer as they should.
func TestWrongAnswers(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"status": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"body":   func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hallo\n") },
		"length": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "6")
			io.WriteString(w, "hel")
		},
	} {
		srv := httptest.NewServer(handler)
		for _, keep := range []bool{false, true} {
			s := Spec{Address: srv.Listener.Addr().String(), Protocol: HTTP1, Path: "/hello", Clients: 1, Keep: keep}
			if r, err := loaded(t, s); err == nil {
				t.Errorf("another %s, connections kept: %v: %d requests, and no error", name, keep, r.Requests)
			}
		}
		srv.Close()
	}
}

// TestLaterWrong has a server whose answers are right at first.
func TestLaterWrong(t *testing.T) {
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 5 {
			fmt.Fprint(w, "HELLO\n")
			return
		}
		answer(w, r)
	}))
	defer srv.Close()
	s := Spec{Address: srv.Listener.Addr().String(), Protocol: HTTP1, Path: "/hello", Clients: 1, Keep: true}
	if r, err := loaded(t, s); err == nil {
		t.Errorf("%d requests, and no error", r.Requests)
	}
}

// TestTolerant has a server that answers each client once, and then leaves it waiting, or closes the connection.
func TestTolerant(t *testing.T) {
	for _, closes := range []bool{false, true} {
		release := make(chan struct{})
		var n atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case n.Add(1) <= 2:
				answer(w, r)
			case closes:
				panic(http.ErrAbortHandler)
			default:
				<-release
			}
		}))
		s := Spec{Address: srv.Listener.Addr().String(), Protocol: HTTP1, Path: "/hello", Clients: 2, Tolerant: true}
		r, err := loaded(t, s)
		if err != nil || !closes && r.Waiting != 2 || (r.Failed > 0) != closes {
			t.Errorf("it closes: %v; %d waiting, %d failed, %v", closes, r.Waiting, r.Failed, err)
		}
		close(release)
		srv.Close()
	}
}

// TestAdd adds the results of two processes.
func TestAdd(t *testing.T) {
	result := func(took int64, pid string) Result {
		h := NewHistogram()
		h.RecordValue(took)
		return Result{Requests: 1, Took: h.Export(), Opened: 2, ByPID: map[string]int{pid: 1, "3": 1}}
	}
	var r Result
	r.Add(result(10, "1"))
	r.Add(result(20, "2"))
	if r.Requests != 2 || r.Opened != 4 || r.ByPID["1"] != 1 || r.ByPID["3"] != 2 || len(r.Took.Counts) == 0 {
		t.Errorf("%+v", r)
	}
}
