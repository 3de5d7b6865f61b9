package master

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/sigctl"
	"github.com/gopherpack/gopherpack/upgrade"
)

// signalHand posts what signals ask for.
type signalHand struct {
	mux    *sigctl.Mux
	cancel context.CancelFunc
	done   chan struct{}

	handles bool // signals are handled
}

// again begins to handle signals if that was ended.
func (h *signalHand) again(m *Master) {
	if !h.handles {
		h.begin(m)
	}
}

// begin begins to handle signals. A third one to stop, or any a second after the second one, has the effect that it has
// by default, whatever has become of the pack.
func (h *signalHand) begin(m *Master) {
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.done, h.handles = cancel, make(chan struct{}), true
	s := m.Signals
	actions := []sigctl.Action{{
		Name:    "stop",
		Signals: s.Stop,
		Do:      func(_ context.Context, s os.Signal) { m.askToStop(&sigctl.Error{Signal: s}) },
		Again: func() {
			m.post(force{})
			time.AfterFunc(time.Second, cancel) // until then it may be the same wish
		},
	}}
	add := func(name string, signals []os.Signal, e event) {
		if len(signals) > 0 {
			do := func(context.Context, os.Signal) { m.post(e) }
			actions = append(actions, sigctl.Action{Name: name, Signals: signals, Do: do})
		}
	}
	add("upgrade", s.Upgrade, upgradeTo{})
	add("reload", s.Reload, reload{})
	add("reopen", s.Reopen, reopen{})
	add("more", s.More, scale{by: +1})
	add("fewer", s.Fewer, scale{by: -1})
	h.mux = &sigctl.Mux{Actions: actions}
	h.mux.Register() // from here on no signal has its default effect
	mux, done := h.mux, h.done
	go func() {
		defer close(done)
		mux.Run(ctx)
	}()
}

// end gives signals the effect that they have by default.
func (h *signalHand) end() {
	h.cancel()
	<-h.done
	h.handles = false
}

// during says what happens to signals while this program becomes another.
func (h *signalHand) during(m *Master) upgrade.Signals {
	s := m.Signals
	return upgrade.Signals{
		Stop:   s.Stop,
		Ignore: slices.Concat(s.Reload, s.Upgrade, s.More, s.Fewer, s.Reopen),
		Late: func() (late os.Signal) {
			h.end()
			for _, p := range h.mux.Pending() {
				if slices.Contains(s.Stop, p) {
					late = p
				}
			}
			if late == nil && m.asked.Load() && len(s.Stop) > 0 {
				late = s.Stop[0] // it is handled already
			}
			return late
		},
	}
}

// lookAtCPUs is how often the master looks whether the CPUs that it may use have changed.
const lookAtCPUs = 2 * time.Second

// followCPUs tells the core when the CPUs that the pack may use have changed: by an update of the container, or as CPUs
// went offline.
func (m *Master) followCPUs(every func(time.Duration, func())) {
	last, err := affinity.Allowed(0)
	if err != nil {
		return // nobody is pinned, either
	}
	every(lookAtCPUs, func() {
		now, err := affinity.Allowed(0)
		if err == nil && now != last {
			m.post(cpusChanged{last, now})
			last = now
		}
	})
}
