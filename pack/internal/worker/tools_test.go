//go:build unix

package worker

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
)

// logged is what was logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// count returns how many lines of a level there are that have a text in them.
func (l *logged) count(level slog.Level, text string) int {
	return len(slices.DeleteFunc(strings.Split(l.String(), "\n"), func(line string) bool {
		return !strings.Contains(line, "level="+level.String()) || !strings.Contains(line, text)
	}))
}

// hello is a server that says hello.
func hello() *drain.HTTP {
	return drain.NewHTTP(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "hello")
	})})
}

// busy is a server that says hello, and takes its time for /wait: until release is called. begun is told of each such
// request.
func busy() (server *drain.HTTP, begun <-chan struct{}, release func()) {
	begins, proceed := make(chan struct{}, 1), make(chan struct{})
	return drain.NewHTTP(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			begins <- struct{}{}
			<-proceed
		}
		io.WriteString(w, "hello")
	})}), begins, func() { close(proceed) }
}

// get asks for something on a connection.
func get(c net.Conn, path string) error {
	c.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
		return fmt.Errorf("body %q, %w", body, err)
	}
	return nil
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// kill sends this process a signal, and returns when everybody has it who asked for it: later it would end the process.
func kill(t *testing.T, s syscall.Signal) {
	t.Helper()
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, s)
	defer signal.Stop(caught)
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		t.Fatal(err)
	}
	<-caught
}

// foreign is a server that somebody else wrote.
type foreign struct {
	serve func(net.Listener) error
}

func (f *foreign) Serve(l net.Listener) error     { return f.serve(l) }
func (f *foreign) Shutdown(context.Context) error { return nil }
func (f *foreign) Close() error                   { return nil }
