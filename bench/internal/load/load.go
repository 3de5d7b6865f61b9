//go:build linux

// Package load has the clients of this module: closed loops, each of which asks for the next when it has been answered.
// They do little for themselves, so that a machine that they share with the server is mostly the server's. They retry
// nothing, and check every answer.
//
// A program of clients runs one Spec, by Main. It says "ready" when each client has been answered once, is told when
// what it does begins to count, and when it ends, and writes a Result.
package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The protocols that clients speak.
const (
	HTTP1 = "HTTP/1.1"
	HTTP2 = "HTTP/2" // always over TLS
	GRPC  = "gRPC"
)

// Spec is what the clients of one process do.
type Spec struct {
	Address  string
	Protocol string
	Path     string
	Secure   bool // TLS 1.3
	Resume   bool // the TLS session that the client had before
	Keep     bool // the connection, for the next request; always so with HTTP/2 and gRPC
	Clients  int  // connections
	Streams  int  // HTTP/2, gRPC: requests under way on each connection
	Slow     int  // more clients, which read the answer to /1m at 100 KB/s, and are not counted
	Tolerant bool // requests may fail, or not be answered
}

// Window is the time in which what clients do counts.
type Window struct{ Begin, End time.Time }

// Result is what clients tell. It counts requests that were sent and answered in the window.
type Result struct {
	Requests   int
	All        int                    // requests that were answered since clients were told when the window is
	Took       *hdrhistogram.Snapshot // by them, in microseconds
	Handshakes int                    // of TLS
	Resumed    int                    // those of them that resumed a session
	Opened     int                    // connections that were opened when clients kept others, or should have
	Failed     int                    // requests, if that is tolerated
	Waiting    int                    // requests without an answer at the end, if that is tolerated
	ByPID      map[string]int         // of requests for /pid: who answered them
	HeldBy     map[string]int         // who answered last on each connection that was kept
}

// Add adds what other clients did.
func (r *Result) Add(other Result) {
	took := NewHistogram()
	for _, s := range []*hdrhistogram.Snapshot{r.Took, other.Took} {
		if s != nil {
			took.Merge(hdrhistogram.Import(s))
		}
	}
	r.Took = took.Export()
	r.Requests += other.Requests
	r.All += other.All
	r.Handshakes += other.Handshakes
	r.Resumed += other.Resumed
	r.Opened += other.Opened
	r.Failed += other.Failed
	r.Waiting += other.Waiting
	r.ByPID = sum(r.ByPID, other.ByPID)
	r.HeldBy = sum(r.HeldBy, other.HeldBy)
}

func sum(a, b map[string]int) map[string]int {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]int{}
	}
	for key, n := range b {
		all[key] += n
	}
	return all
}

// NewHistogram returns a histogram of up to a minute, in microseconds, to three digits.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
}

// Main is the whole of a program of clients.
func Main(in io.Reader, out io.Writer) error {
	orders := json.NewDecoder(in)
	var s Spec
	if err := orders.Decode(&s); err != nil {
		return fmt.Errorf("what to do: %w", err)
	}
	g := &group{Spec: s, took: NewHistogram(), Result: Result{ByPID: map[string]int{}, HeldBy: map[string]int{}}}
	clients, err := g.clients()
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	if err := each(clients, client.prepare); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	if err := orders.Decode(&g.Window); err != nil {
		return fmt.Errorf("when: %w", err)
	}
	if err := each(clients, client.run); err != nil {
		return err
	}
	g.Took = g.took.Export()
	return json.NewEncoder(out).Encode(g.Result)
}

// client is one client, on a connection at a time.
type client interface {
	prepare() error // is answered once
	run() error     // goes on until the window ends
	close()
}

// each does something with all clients at once.
func each(clients []client, do func(client) error) error {
	errs := make([]error, len(clients))
	var running sync.WaitGroup
	for i, c := range clients {
		running.Go(func() { errs[i] = do(c) })
	}
	running.Wait()
	return errors.Join(errs...)
}

// group is the clients of this process, and what they count together.
type group struct {
	Spec
	Window
	mu   sync.Mutex
	took *hdrhistogram.Histogram
	Result
}

func (g *group) clients() (all []client, err error) {
	for range g.Clients {
		var c client
		switch g.Protocol {
		case HTTP1:
			c, err = newHTTP1(g)
		case HTTP2:
			c, err = newHTTP2(g)
		case GRPC:
			c, err = newGRPC(g)
		default:
			err = fmt.Errorf("nobody speaks %q here", g.Protocol)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	for range g.Slow {
		all = append(all, newSlow(g))
	}
	return all, nil
}

// answered counts a request, and returns the time.
func (g *group) answered(sent time.Time) time.Time {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.All++
	if !sent.Before(g.Begin) && now.Before(g.End) {
		g.Requests++
		g.took.RecordValue(now.Sub(sent).Microseconds())
	}
	return now
}

// counted does something with the counters if it is time to count.
func (g *group) counted(do func()) {
	if now := time.Now(); now.Before(g.Begin) || !now.Before(g.End) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
}

// forgive counts a failed request, if that is tolerated: one that has waited until the end has taken at least so long.
func (g *group) forgive(sent time.Time, err error) error {
	if !g.Tolerant || g.End.IsZero() {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
		g.Waiting++
		if waited := g.End.Sub(sent); waited > 0 {
			g.took.RecordValue(waited.Microseconds())
		}
		return nil
	}
	g.Failed++
	return nil
}

// patience is how long an answer may take when it must come.
const patience = 20 * time.Second

// deadline is that of a connection that is opened now, or goes on from now.
func (g *group) deadline() time.Time {
	now := time.Now()
	switch {
	case g.End.Before(now):
		return now.Add(patience)
	case g.Tolerant:
		return g.End
	}
	return g.End.Add(patience)
}
