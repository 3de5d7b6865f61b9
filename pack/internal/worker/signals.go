package worker

import (
	"os"
	"os/signal"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// catch takes from signals the effect that they have by default, until stop is called, and has do called with each, if
// it is not nil; when that returns false, they have that effect again. It does not use signal.Ignore, which programs
// that the worker starts would inherit.
func catch(signals []os.Signal, do func(os.Signal) (more bool)) (stop func()) {
	if len(signals) == 0 { // which would be all
		return func() {}
	}
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, signals...)
	if do == nil {
		return func() { signal.Stop(caught) }
	}
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer signal.Stop(caught)
		for {
			select {
			case s := <-caught:
				if !do(s) {
					return
				}
			case <-stopped:
				return
			}
		}
	}()
	return func() { close(stopped); <-ended }
}

// signalError is a signal as the reason for a stop.
type signalError struct{ os.Signal }

func (e signalError) Error() string { return "signal: " + e.String() }

// stopSignal deals with a signal to stop. When the master is gone the first one is taken for the wish that is being
// fulfilled, and a second one ends the process.
func (w *worker) stopSignal(s os.Signal) (more bool) {
	if w.isGone() {
		w.log.Debug("the worker is asked to stop, and it does so already; the next signal ends it", "signal", s.String())
		return false
	}
	w.stopping(signalError{s})
	return true
}

// stopping tells the master, once, that this worker was asked to stop.
func (w *worker) stopping(why error) {
	w.log.Debug("the worker is asked to stop, and says so to the master", "reason", why)
	w.control.post(wire.Message{Type: wire.Stopping}) // a second time is refused
}
