package master

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/terminal"
	"github.com/gopherpack/gopherpack/sigctl"
	"github.com/gopherpack/gopherpack/upgrade"
)

// signalHand posts what signals ask for.
type signalHand struct {
	mux    *sigctl.Mux
	cancel context.CancelFunc
	done   chan struct{}

	handles bool // signals are handled

	terminal bool        // there was one when this program began
	nohup    atomic.Bool // HUP was ignored when the pack was started: the end of the terminal is nothing to it
	hungUp   time.Time   // when that was noticed
	left     bool        // the signals for more and fewer workers, to the terminal
}

var errHungUp = errors.New("the terminal was closed")

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
	add := func(name string, signals []os.Signal, do func()) {
		if len(signals) > 0 {
			ask := func(context.Context, os.Signal) { do() }
			actions = append(actions, sigctl.Action{Name: name, Signals: signals, Do: ask})
		}
	}
	add("upgrade", s.Upgrade, func() { m.post(upgradeTo{}) })
	add("reload", s.Reload, func() { h.hup(m) })
	add("reopen", s.Reopen, func() { m.post(reopen{}) })
	add("more", s.More, func() { m.post(scale{by: +1}) })
	add("fewer", s.Fewer, func() { m.post(scale{by: -1}) })
	add("continue", s.Continue, func() { h.leaveToTerminal(m) }) // bg, in a shell
	h.mux = &sigctl.Mux{Actions: actions}
	h.mux.Register() // from here on no signal has its default effect
	h.left = false
	h.leaveToTerminal(m)
	mux, done := h.mux, h.done
	go func() {
		defer close(done)
		mux.Run(ctx)
	}()
}

// hup has the pack reloaded, unless the signal says that the terminal is gone in which it was started. That the kernel
// and the shell may both say.
func (h *signalHand) hup(m *Master) {
	if h.terminal && !terminal.Controls() {
		h.terminal, h.hungUp = false, time.Now()
	}
	switch {
	case h.hungUp.IsZero() || time.Since(h.hungUp) > time.Second:
		m.post(reload{})
	case !h.nohup.Load():
		m.askToStop(errHungUp)
	}
}

// leaveToTerminal has the signals for more and fewer workers ignored if this process is in the background of a
// terminal, which sends them to who reads from it or writes to it (tostop): caught, they would come as fast as that is
// tried again, and a child that is just being started would be stopped for good.
func (h *signalHand) leaveToTerminal(m *Master) {
	signals := slices.Concat(m.Signals.More, m.Signals.Fewer)
	if len(signals) == 0 || h.left || !terminal.InBackground() {
		return
	}
	h.left = true
	signal.Ignore(signals...)
	m.log.put(logLine{slog.LevelInfo, "in the background of a terminal", []any{
		"signals", "TTIN and TTOU are the terminal's own, and ignored; setsid starts a program without one",
	}})
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

// lookAtCPUs is how often the master looks whether the CPUs that it may use, or its processor quota, have changed.
const lookAtCPUs = 2 * time.Second

// followCPUs tells the core when the CPUs, or the processor time, that the pack may use have changed: by an update of the
// container, or as CPUs went offline.
func (m *Master) followCPUs(every func(time.Duration, func())) {
	last := plan.Usable{}.Now()
	if last == (plan.Usable{}) {
		return // this system does not tell
	}
	every(lookAtCPUs, func() {
		if now := last.Now(); now != last {
			m.post(cpusChanged{last.String(), now.String()})
			last = now
		}
	})
}
