// Package strictclient loads an HTTP/1.1 server with closed-loop clients that retry nothing and count every
// failure by its kind. (An http.Transport would send a request again, unasked, when a kept-alive connection
// turns out to be closed.)
package strictclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Load is what to send, and to whom.
type Load struct {
	Network, Address string
	TLS              *tls.Config   // nil: none
	Clients          int           // each has one request under way at a time
	KeepAlive        bool          // keep the connection for the next request, unless the server closes it
	Pause            time.Duration // between a client's requests, on average: a random time of up to twice that
	Silence          time.Duration // from when a client is connected until it says its first, at most; a random time
	Path             string        // default "/"
	Body             string        // POST it; default: GET
	Timeout          time.Duration // of a request, connecting included; default 30 s
	PerClient        int           // requests of each client; default: until ctx ends
	Sent, Answered   *atomic.Int64 // if set, count requests as they go

	// Answer, if set, is called with each answer, and the number of the client that got it, by all clients at once.
	Answer func(client int, body string)
}

// Result is what came of it.
type Result struct {
	Requests int            // that were answered, with status 200 and the whole body
	Conns    int            // that were opened
	Failures map[string]int // by kind
	Samples  []Failure      // the first thousand of each kind
	Bodies   map[string]int // how often each answer was given
	Longest  time.Duration  // how long a request took at most that was answered
}

// Failure is one request that was not answered.
type Failure struct {
	Kind   string
	Err    error
	Local  string    // the client's address, if it was connected
	Opened time.Time // when it began to connect
	Spoke  time.Time // when it said its first, if it was connected
	Sent   time.Time // when the request began
	Ended  time.Time // when it failed
}

// Failed returns how many requests failed.
func (r *Result) Failed() int {
	n := 0
	for _, k := range r.Failures {
		n += k
	}
	return n
}

func (r *Result) String() string {
	return fmt.Sprintf("%d answered on %d connections, %d failed %v", r.Requests, r.Conns, r.Failed(), r.Failures)
}

// Run loads the server until ctx ends, then lets the requests that are under way finish.
func (l Load) Run(ctx context.Context) *Result {
	if l.Timeout == 0 {
		l.Timeout = 30 * time.Second
	}
	if l.Path == "" {
		l.Path = "/"
	}
	total := &Result{Failures: map[string]int{}, Bodies: map[string]int{}}
	var mu sync.Mutex
	var clients sync.WaitGroup
	for i := range l.Clients {
		clients.Go(func() {
			c := client{Load: l}
			defer c.close()
			for n := 0; ctx.Err() == nil && (l.PerClient == 0 || n < l.PerClient); n++ {
				begun := time.Now()
				body, failure := c.request()
				if l.Answered != nil && failure == nil {
					l.Answered.Add(1)
				}
				if l.Answer != nil && failure == nil {
					l.Answer(i, body)
				}
				mu.Lock()
				total.add(body, failure, time.Since(begun))
				mu.Unlock()
				if l.Pause > 0 {
					select {
					case <-time.After(rand.N(2 * l.Pause)):
					case <-ctx.Done():
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total.Conns += c.opened
		})
	}
	clients.Wait()
	return total
}

func (r *Result) add(body string, f *Failure, took time.Duration) {
	if f != nil {
		r.Failures[f.Kind]++
		if r.Failures[f.Kind] <= 1000 {
			r.Samples = append(r.Samples, *f)
		}
		return
	}
	r.Requests++
	r.Bodies[body]++
	r.Longest = max(r.Longest, took)
}

// client is one client.
type client struct {
	Load
	conn   net.Conn
	reader *bufio.Reader
	opened int       // connections
	since  time.Time // when the last was begun
	spoke  time.Time // when something was first said on it
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// request sends one request and reads its answer.
func (c *client) request() (string, *Failure) {
	begun := time.Now()
	deadline := begun.Add(c.Timeout)
	fail := func(stage string, err error) (string, *Failure) {
		f := &Failure{
			Kind: stage + ": " + kindOf(err), Err: err, Opened: c.since, Spoke: c.spoke, Sent: begun, Ended: time.Now(),
		}
		if c.conn != nil {
			f.Local = c.conn.LocalAddr().String()
		}
		c.close()
		return "", f
	}
	stage := "kept-alive connection"
	if c.conn == nil {
		stage, c.since, c.spoke = "new connection", begun, time.Time{}
		conn, err := c.dial(deadline)
		if err != nil {
			return fail("connect", err)
		}
		c.conn, c.reader = conn, bufio.NewReader(conn)
		c.opened++
	}
	c.conn.SetDeadline(deadline)
	method, connection := "GET", "close"
	if c.Body != "" {
		method = "POST"
	}
	if c.KeepAlive {
		connection = "keep-alive"
	}
	_, err := fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: strict\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n%s",
		method, c.Path, connection, len(c.Body), c.Body)
	if err != nil {
		return fail(stage+", write", err)
	}
	if c.Sent != nil {
		c.Sent.Add(1)
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return fail(stage+", response", err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return fail(stage+", body", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fail(stage+", status", fmt.Errorf("status %d", resp.StatusCode))
	}
	if !c.KeepAlive || resp.Close {
		c.close()
	}
	return strings.TrimSpace(string(body)), nil
}

func (c *client) dial(deadline time.Time) (net.Conn, error) {
	conn, err := (&net.Dialer{Deadline: deadline}).Dial(c.Network, c.Address)
	if err != nil {
		return nil, err
	}
	if c.Silence > 0 {
		time.Sleep(rand.N(c.Silence))
	}
	c.spoke = time.Now()
	if c.TLS == nil {
		return conn, nil
	}
	secure := tls.Client(conn, c.config())
	secure.SetDeadline(deadline)
	if err := secure.Handshake(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}

// config returns the configuration of TLS, with the name of the server.
func (c *client) config() *tls.Config {
	if c.TLS.ServerName != "" {
		return c.TLS
	}
	config := c.TLS.Clone()
	config.ServerName, _, _ = net.SplitHostPort(c.Address)
	return config
}

// kindOf names an error without the addresses that make each one different.
func kindOf(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded): // the latter by Dial
		return "timeout"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "closed without an answer"
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		return call.Err.Error()
	}
	return err.Error()
}
