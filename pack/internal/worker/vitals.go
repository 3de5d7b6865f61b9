package worker

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// vitals returns how this worker does.
func (w *worker) vitals() wire.Message {
	conns, accepted := w.service.reporter.now()
	return wire.Message{Type: wire.Beat, Vitals: &wire.Vitals{
		Served: w.service.reporter.served.Load(), Accepted: accepted, Conns: conns,
		Probe: w.probe.fails(2 * w.beatEvery()),
	}}
}

// beat tells the master again and again that this worker works, until its end: that its goroutines get to run is what
// it says. It calls the probe while the worker serves.
func (w *worker) beat(serving context.Context) {
	if w.Probe != nil {
		go w.probe.run(serving, w.Probe, w.beatEvery(), w.HangTimeout)
	}
	tick := time.NewTicker(w.beatEvery())
	defer tick.Stop()
	before := w.service.reporter.moment()
	for {
		now := w.service.reporter.moment()
		if now.used-before.used > now.at.Sub(before.at)/4 { // by what serves without telling
			w.service.reporter.wake()
		}
		before = now
		if err := w.control.say(w.vitals()); err != nil {
			return // it has said its last, or nobody listens
		}
		select {
		case <-tick.C:
		case <-w.control.done:
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
		p.set(time.Now(), nil)
		limited, cancel := context.WithTimeout(ctx, timeout)
		err := probe(limited)
		cancel()
		p.set(time.Time{}, err)
		select {
		case <-time.After(every):
		case <-ctx.Done():
		}
	}
	p.set(time.Time{}, nil) // of a worker that drains it says nothing
}

func (p *prober) set(begun time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = begun
	if begun.IsZero() {
		p.err = err
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
	os.Stderr.Write(stacks())
}

// stacks returns the stack of every goroutine, up to 64 MB of them.
func stacks() []byte {
	for size := 64 << 10; ; size *= 2 {
		text := make([]byte, size)
		if n := runtime.Stack(text, true); n < size || size >= 64<<20 {
			return text[:n]
		}
	}
}
