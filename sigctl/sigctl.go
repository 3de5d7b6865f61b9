// Package sigctl turns signals into actions: a [Context] that the first signal ends, and a [Mux] that runs
// named actions, one at a time and in an order of precedence.
//
// Both keep the rule that operators rely on: the first signal asks, the second one does not ask.
//
// Until a signal is registered it does what it does by default: HUP, INT and TERM end the process. Register
// early in main.
package sigctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
)

// Error is the cause of a context that a signal ended; see [context.Cause].
type Error struct {
	Signal os.Signal
}

func (e *Error) Error() string { return "signal: " + e.Signal.String() }

// Context returns a copy of parent that ends when one of the signals arrives; its cause is then an [*Error].
// From that moment the signals have their default effect again, so that a second one ends the process at once
// (unless some other part of the program has registered for it too). The stop function releases the signals
// and ends the context; call it when the work is done.
//
// It differs from [signal.NotifyContext], which keeps swallowing signals until its stop function is called.
func Context(parent context.Context, signals ...os.Signal) (ctx context.Context, stop context.CancelFunc) {
	if len(signals) == 0 {
		panic("sigctl: Context without signals")
	}
	ctx, cancel := context.WithCancelCause(parent)
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, signals...)
	released := make(chan struct{})
	go func() {
		defer close(released)
		defer signal.Stop(arrived)
		select {
		case s := <-arrived:
			signal.Stop(arrived) // before anybody sees the context end
			cancel(&Error{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-released
	}
}

// Action is what some signals ask for.
type Action struct {
	Name    string // for errors
	Signals []os.Signal

	// Do is run when one of the signals arrives, with the first that did. Signals of the action that arrive while it
	// waits are the same wish and lead to one run; those that arrive while Do runs lead to one more. ctx ends when an
	// action of higher precedence waits, or the context of Run ends: Do should then give up and return.
	Do func(ctx context.Context, s os.Signal)

	// Again, if set, makes Do run once only: each further signal of the action, also while Do runs, calls
	// Again instead. Use it for the second signal that forces what the first one asked for. It is called
	// from Run's goroutine and must not block.
	Again func()
}

// Mux runs actions as signals ask for them. It never runs the Do of two actions at once. Fields must not
// change after Run was called.
type Mux struct {
	// Actions are in order of precedence: of several that wait the first runs, and it interrupts, by their
	// context, those after it.
	Actions []Action

	arrived chan os.Signal // set by Register
	pending []os.Signal
}

// Register registers the signals of all actions, for Run, which otherwise does so itself: from when it returns they do
// not have their default effect any more. A wrong Mux, such as two actions for one signal, is an error.
func (m *Mux) Register() error {
	arrived := make(chan os.Signal, 64)
	if err := m.register(arrived); err != nil {
		return err
	}
	m.arrived = arrived
	return nil
}

// Run registers the signals of all actions, unless Register has, then runs the actions until ctx ends and the Do that
// is running, if any, has returned. It then returns ctx's cause, or at once an error of Register. It is called once.
func (m *Mux) Run(ctx context.Context) error {
	if m.arrived == nil {
		if err := m.Register(); err != nil {
			return err
		}
	}
	arrived := m.arrived
	waiting, err := m.loop(ctx, arrived)
	signal.Stop(arrived) // which delivers what was received before
	close(arrived)
	m.pending = slices.DeleteFunc(waiting, func(s os.Signal) bool { return s == nil })
	for s := range arrived {
		m.pending = append(m.pending, s)
	}
	return err
}

// Pending returns, after Run has returned, the signals that had arrived until then and that nothing was done about,
// those that asked for the first action first. From then on signals have their default effect again.
func (m *Mux) Pending() []os.Signal { return m.pending }

func (m *Mux) register(arrived chan<- os.Signal) error {
	var all []os.Signal
	for _, a := range m.Actions {
		if len(a.Signals) == 0 || a.Do == nil {
			return fmt.Errorf("sigctl: action %q has no signals or no Do", a.Name)
		}
		for _, s := range a.Signals {
			if slices.Contains(all, s) {
				return fmt.Errorf("sigctl: action %q: signal %q has an action already", a.Name, s)
			}
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return errors.New("sigctl: no actions")
	}
	signal.Notify(arrived, all...)
	return nil
}

// loop is the goroutine that owns all state. It returns what waits in the end, and ctx's cause.
func (m *Mux) loop(ctx context.Context, arrived <-chan os.Signal) (waiting []os.Signal, err error) {
	const none = -1
	var (
		begun   = make([]bool, len(m.Actions)) // Do has been started
		running = none
		cancel  = func() {} // ends the context of the running Do
		done    = make(chan struct{}, 1)
	)
	waiting = make([]os.Signal, len(m.Actions)) // what asked for the action; nil if nothing did
	for {
		next := slices.IndexFunc(waiting, func(s os.Signal) bool { return s != nil })
		switch {
		case ctx.Err() != nil && running == none:
			return waiting, context.Cause(ctx)
		case ctx.Err() == nil && running == none && next != none:
			cancel = launch(ctx, m.Actions[next].Do, waiting[next], done)
			running, waiting[next], begun[next] = next, nil, true
		case running != none && next != none && next < running:
			cancel()
		}
		var ended <-chan struct{} // once ctx has ended, only the running Do matters
		if ctx.Err() == nil {
			ended = ctx.Done()
		}
		select {
		case <-ended:
		case <-done:
			cancel()
			running = none
		case s := <-arrived:
			i := slices.IndexFunc(m.Actions, func(a Action) bool { return slices.Contains(a.Signals, s) })
			if again := m.Actions[i].Again; again != nil && (begun[i] || waiting[i] != nil) {
				again()
			} else if waiting[i] == nil {
				waiting[i] = s
			}
		}
	}
}

// launch runs do in a goroutine, tells done when it has returned, and returns what ends its context.
func launch(ctx context.Context, do func(context.Context, os.Signal), s os.Signal, done chan<- struct{}) context.CancelFunc {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer func() { done <- struct{}{} }()
		do(ctx, s)
	}()
	return cancel
}
