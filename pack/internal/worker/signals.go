package worker

import (
	"os"
	"os/signal"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// catch takes from signals the effect that they have by default, until release is called. It does not use
// signal.Ignore, which programs that the worker starts would inherit.
func catch(signals []os.Signal) (caught <-chan os.Signal, release func()) {
	c := make(chan os.Signal, 1)
	if len(signals) > 0 { // none would be all
		signal.Notify(c, signals...)
	}
	return c, func() { signal.Stop(c) }
}

// watch calls do with each signal that is caught, until stop is called, or do returns false, which releases them.
func watch(caught <-chan os.Signal, release func(), do func(os.Signal) (more bool)) (stop func()) {
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case s := <-caught:
				if !do(s) {
					release()
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
		w.log.Debug("the worker is asked to stop, and it does so already; the next signal ends it",
			"signal", s.String())
		return false
	}
	w.stopping(signalError{s})
	return true
}

// leaveSignals is the end of a worker, but not of its process, which may have files to close when Run has returned. A
// signal to stop is another wish for what happens already, and those for the master are for the master, so they go on to
// have no effect. But where the master is gone, which would kill a process that does not end, all have their own again,
// and otherwise so has the second one to stop.
func (w *worker) leaveSignals(caught <-chan os.Signal, release, releaseOthers func()) {
	switch {
	case w.isGone():
		release()
		releaseOthers()
	case len(w.StopSignals) > 0:
		go func() {
			<-caught
			release()
		}()
	}
}

// stopping tells the master, once, that this worker was asked to stop.
func (w *worker) stopping(why error) {
	w.log.Debug("the worker is asked to stop, and says so to the master", "reason", why)
	w.control.post(wire.Message{Type: wire.Stopping}) // a second time is refused
}
