package pack

import (
	"context"
	"fmt"
	"os"
	"runtime/pprof"
	"sync"
	"time"
)

// vitals is how a worker does, by itself.
type vitals struct {
	Served uint64 `json:"served,omitempty"` // requests, of servers that tell of them, and connections of others
	Conns  int    `json:"conns,omitempty"`  // open connections
	Probe  string `json:"probe,omitempty"`  // why Config.Probe fails
}

// beatEvery returns how often a worker beats.
func (c *Config) beatEvery() time.Duration { return min(c.HangTimeout/10, time.Second) }

// beat tells the master again and again that this worker works, until ctx ends: that its goroutines get to run is what it says,
// and what the probe does.
func (w *workerState) beat(ctx context.Context, s *service) {
	c := s.pack.config
	var p prober
	if c.Probe != nil {
		go p.run(ctx, c.Probe, c.beatEvery(), c.HangTimeout)
	}
	tick := time.NewTicker(c.beatEvery())
	defer tick.Stop()
	for {
		w.send(message{Type: msgBeat, Vitals: &vitals{
			Served: s.reporter.served.Load(), Conns: s.reporter.openNow(), Probe: p.fails(2 * c.beatEvery()),
		}})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// prober calls a probe again and again.
type prober struct {
	mu    sync.Mutex
	begun time.Time // of the call that has not returned; zero if there is none
	err   error     // of the last that has
}

func (p *prober) run(ctx context.Context, probe func(context.Context) error, every, timeout time.Duration) {
	for ctx.Err() == nil {
		p.mu.Lock()
		p.begun = time.Now()
		p.mu.Unlock()
		limited, cancel := context.WithTimeout(ctx, timeout)
		err := probe(limited)
		cancel()
		p.mu.Lock()
		p.begun, p.err = time.Time{}, err
		p.mu.Unlock()
		select {
		case <-time.After(every):
		case <-ctx.Done():
		}
	}
}

// fails returns why the probe fails, or "". It may take a while.
func (p *prober) fails(while time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if took := time.Since(p.begun); !p.begun.IsZero() && took > while {
		return fmt.Sprintf("it has not returned for %v", took.Round(time.Millisecond))
	}
	if p.err != nil {
		return p.err.Error()
	}
	return ""
}

// writeStacks writes the stack of every goroutine to stderr, as a panic does.
func writeStacks(worker int) {
	fmt.Fprintf(os.Stderr, "worker %d, pid %d: the stack of every goroutine\n", worker, os.Getpid())
	pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
}
