//go:build unix

package drain

import (
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkRequest compares what net/http takes for a request by itself, and in a server of this package, from
// connections that cost nothing: of a client that keeps its connection, and of clients that connect for each request.
func BenchmarkRequest(b *testing.B) {
	for _, kept := range []bool{true, false} {
		name := "/new"
		if kept {
			name = "/kept"
		}
		for _, kind := range []string{"net-http", "tracked", "movable"} {
			b.Run(kind+name, func(b *testing.B) { benchmarkRequest(b, kind, kept) })
		}
	}
}

func benchmarkRequest(b *testing.B, kind string, kept bool) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "hello\n")
	})}
	l := &replay{requests: b.N, conns: 1, text: []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), end: make(chan struct{}), room: make(chan struct{}, 16)}
	if !kept {
		l.requests, l.conns, l.text = 1, b.N, []byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	}
	l.open.Store(int64(l.conns))
	b.ReportAllocs()
	before := cpuTime()
	defer func() { b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op") }()
	switch h := NewHTTP(srv); kind {
	case "net-http":
		srv.Serve(l)
	case "tracked":
		h.Serve(l)
	default:
		h.isSecure()
		srv.Serve(replayMovable{l, movableListener{l, nil, &h.open, new(atomic.Bool), srv}})
	}
}

// cpuTime is what this process has used of processors, which other processes disturb less than the time it takes.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// replay is a listener whose connections each say the same thing so many times.
type replay struct {
	requests, conns int
	text            []byte
	open            atomic.Int64
	end             chan struct{}
	room            chan struct{} // has room for as many as may be open
}

func (l *replay) Accept() (net.Conn, error) {
	if l.conns--; l.conns < 0 {
		<-l.end
		return nil, net.ErrClosed
	}
	l.room <- struct{}{}
	return &replayed{l, l.requests, make(chan struct{}, 1)}, nil
}

func (l *replay) Close() error   { return nil }
func (l *replay) Addr() net.Addr { return replayAddr }

var replayAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}

type replayed struct {
	*replay
	left    int
	expired chan struct{}
}

func (c *replayed) Read(b []byte) (int, error) {
	if len(b) == 1 { // net/http looks for the end while a handler runs
		<-c.expired
		return 0, os.ErrDeadlineExceeded
	}
	if c.left == 0 {
		return 0, io.EOF
	}
	c.left--
	return copy(b, c.text), nil
}

func (c *replayed) Close() error {
	<-c.room
	if c.open.Add(-1) == 0 {
		close(c.end)
	}
	return nil
}

func (c *replayed) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && t.Before(time.Unix(1000, 0)) {
		c.expired <- struct{}{}
	}
	return nil
}

func (c *replayed) Write(b []byte) (int, error)           { return len(b), nil }
func (c *replayed) LocalAddr() net.Addr                   { return replayAddr }
func (c *replayed) RemoteAddr() net.Addr                  { return replayAddr }
func (c *replayed) SetDeadline(time.Time) error           { return nil }
func (c *replayed) SetWriteDeadline(time.Time) error      { return nil }
func (c *replayed) SyscallConn() (syscall.RawConn, error) { return nil, syscall.EINVAL }

// replayMovable makes the connections movable.
type replayMovable struct {
	net.Listener
	movable movableListener
}

func (l replayMovable) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	m := &movableReplayed{replayed: c.(*replayed)}
	l.movable.prepare(&m.movable, m.replayed, false)
	return m, nil
}

type movableReplayed struct {
	*replayed
	movable
}

func (c *movableReplayed) Read(b []byte) (int, error)        { return c.read(b) }
func (c *movableReplayed) Close() error                      { return c.close() }
func (c *movableReplayed) SetDeadline(t time.Time) error     { return c.setDeadline(t) }
func (c *movableReplayed) SetReadDeadline(t time.Time) error { return c.setReadDeadline(t) }
