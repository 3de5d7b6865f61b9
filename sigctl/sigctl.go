// Package sigctl turns signals into actions: a [Context] that the first signal ends, and a [Mux] that runs
// named actions, one at a time and in an order of precedence.
//
// Both keep the rule that operators rely on: the first signal asks, the second one does not ask. The same signal again
// within a second is no second one: whoever stops a program often signals its process group, too, as timeout(1) does,
// or a shell script that passes TERM on.
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
	"sync"
	"time"
)

// sameWish is for how long a signal is the same wish as the one before.
const sameWish = time.Second

// Error is the cause of a context that a signal ended; see [context.Cause].
type Error struct {
	Signal os.Signal
}

func (e *Error) Error() string { return "signal: " + e.Signal.String() }

// Context returns a copy of parent that ends when one of the signals arrives; its cause is then an [*Error].
// From that moment the signals have their default effect again, so that a second one ends the process at once
// (unless some other part of the program has registered for it too); that one itself has a second later. The stop
// function releases the signals and ends the context; call it when the work is done. It panics if there are no signals,
// or some that cannot be caught.
//
// HUP that was ignored when the program began stays so, as nohup(1) wants it. A Mux, for which HUP may be a command to
// reload, takes it.
//
// It differs from [signal.NotifyContext], which keeps swallowing signals until its stop function is called.
func Context(parent context.Context, signals ...os.Signal) (ctx context.Context, stop context.CancelFunc) {
	if len(signals) == 0 {
		panic("sigctl: Context without signals")
	}
	if err := catchable(signals); err != nil {
		panic("sigctl: Context: " + err.Error())
	}
	ctx, cancel := context.WithCancelCause(parent)
	arrived := listen(slices.DeleteFunc(slices.Clone(signals), staysIgnored))
	released, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(released)
		select {
		case s := <-arrived.signals:
			same := make(chan os.Signal, 1)
			signal.Notify(same, s)
			defer signal.Stop(same)
			late := arrived.stop()
			cancel(&Error{s}) // nobody sees the context end before
			for _, other := range late {
				if other != s {
					raise(other) // which has its default effect now
				}
			}
			timer := time.NewTimer(sameWish)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ended:
			}
		case <-ctx.Done():
			arrived.stop()
		}
	}()
	var once sync.Once
	return ctx, func() {
		once.Do(func() { close(ended) })
		cancel(context.Canceled)
		<-released
	}
}

// listener receives signals: each at least once, however many come, since each has a place of its own.
type listener struct {
	signals chan os.Signal
	places  []chan os.Signal
	done    sync.WaitGroup
}

// listen begins to receive signals, which do not have their default effect from here on.
func listen(signals []os.Signal) *listener {
	l := &listener{signals: make(chan os.Signal)}
	for _, s := range signals {
		place := make(chan os.Signal, 1)
		signal.Notify(place, s)
		l.places = append(l.places, place)
		l.done.Go(func() {
			for s := range place {
				l.signals <- s
			}
		})
	}
	return l
}

// stop gives signals the effect that they have by default, and returns those that had arrived before.
func (l *listener) stop() (late []os.Signal) {
	for _, place := range l.places {
		signal.Stop(place) // which delivers what was received before
		close(place)
	}
	go func() {
		l.done.Wait()
		close(l.signals)
	}()
	for s := range l.signals {
		late = append(late, s)
	}
	return late
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
	// Again instead, but for the same signal again within a second. Use it for the second signal that forces what the
	// first one asked for. It is called from Run's goroutine and must not block.
	Again func()
}

// Mux runs actions as signals ask for them. It never runs the Do of two actions at once. Fields must not
// change after Run was called.
type Mux struct {
	// Actions are in order of precedence: of several that wait the first runs, and it interrupts, by their
	// context, those after it.
	Actions []Action

	arrived *listener // set by Register
	pending []os.Signal
}

// Register registers the signals of all actions, for Run, which otherwise does so itself: from when it returns they do
// not have their default effect any more, and none is lost until Run. A wrong Mux, such as two actions for one signal,
// or one for KILL, which cannot be caught, is an error.
func (m *Mux) Register() error {
	signals, err := m.check()
	if err == nil {
		m.arrived = listen(signals)
	}
	return err
}

// Run registers the signals of all actions, unless Register has, then runs the actions until ctx ends and the Do that
// is running, if any, has returned. It then returns ctx's cause, or at once an error of Register. It is called once.
// A Do ends it by ending ctx.
func (m *Mux) Run(ctx context.Context) error {
	if m.arrived == nil {
		if err := m.Register(); err != nil {
			return err
		}
	}
	waiting, err := m.loop(ctx, m.arrived.signals)
	m.pending = slices.DeleteFunc(waiting, func(s os.Signal) bool { return s == nil })
	m.pending = append(m.pending, m.arrived.stop()...)
	return err
}

// Pending returns, after Run has returned, the signals that had arrived until then and that nothing was done about,
// those that asked for the first action first. From then on signals have their default effect again.
func (m *Mux) Pending() []os.Signal { return m.pending }

// check returns the signals of all actions, or what is wrong with these.
func (m *Mux) check() (all []os.Signal, err error) {
	for _, a := range m.Actions {
		if len(a.Signals) == 0 || a.Do == nil {
			return nil, fmt.Errorf("sigctl: action %q has no signals or no Do", a.Name)
		}
		if err := catchable(a.Signals); err != nil {
			return nil, fmt.Errorf("sigctl: action %q: %w", a.Name, err)
		}
		for _, s := range a.Signals {
			if slices.Contains(all, s) {
				return nil, fmt.Errorf("sigctl: action %q: signal %q has an action already", a.Name, s)
			}
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("sigctl: no actions")
	}
	return all, nil
}

// loop is the goroutine that owns all state. It returns what waits in the end, and ctx's cause.
func (m *Mux) loop(ctx context.Context, arrived <-chan os.Signal) (waiting []os.Signal, err error) {
	const none = -1
	var (
		begun   = make([]bool, len(m.Actions)) // Do has been started
		counted = map[os.Signal]time.Time{}    // when a signal asked last, or asked again
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
			last, ok := counted[s]
			again := m.Actions[i].Again
			if again != nil && ok && time.Since(last) < sameWish {
				break
			}
			counted[s] = time.Now()
			if again != nil && (begun[i] || waiting[i] != nil) {
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
