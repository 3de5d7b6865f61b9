package upgrade

import (
	"fmt"
	"os"
	"os/signal"
	"time"
)

// Signals says what happens to signals while one program becomes another. Neither has handlers then: not the old
// program, since a signal that a handler of Go's has received is lost when execve(2) ends its thread, and not yet the
// new one. A mask would not help: Go programs unblock HUP, INT, QUIT and TERM when they start, before they have
// handlers.
type Signals struct {
	// Stop are signals to end the program. They have their default action, which ends the process, from before execve
	// on, so that none is lost. The first process of a PID namespace has no default action: there, one that arrives
	// within about a millisecond of execve may be lost.
	Stop []os.Signal

	// Ignore are signals that the new program handles, but must not die of before it does, such as HUP. They are
	// ignored until the new program asks for them; [Estate.Close] gives those that it has not asked for their default
	// action.
	Ignore []os.Signal

	// Late, if set, is called when signals have these actions, and those that arrived before have been sent to the
	// channels of [signal.Notify]. It returns a Stop signal that the program had received before and has not acted
	// upon, nil if there is none. If there is one, the program is not replaced, and the error is a [LateSignal].
	Late func() os.Signal
}

// LateSignal is the error of [Become] and [Estate.HandBack] when [Signals.Late] returns a signal: the program is to end
// instead of becoming another.
type LateSignal struct{ Signal os.Signal }

func (l LateSignal) Error() string { return fmt.Sprintf("%v arrived before", l.Signal) }

// settle is how long a thread may take from the kernel's delivery of a signal to the begin of Go's handler:
// microseconds, unless another thread has its CPU.
const settle = 20 * time.Millisecond

// awaitNone waits until none of some signals is in a state, but not for ever: threads may block them for good.
func awaitNone(in func([]os.Signal) bool, signals []os.Signal) {
	for range 1000 {
		if !in(signals) {
			break
		}
		time.Sleep(time.Millisecond)
	}
}

// await waits until handlers of signals that have begun have ended, and what they have received is where os/signal was
// to send it.
func await(signals []os.Signal) {
	time.Sleep(settle)
	awaitNone(handling, signals)
	c := make(chan os.Signal, 1)
	signal.Notify(c, otherSignal)
	signal.Stop(c) // which waits for that
}

// set gives the signals their actions, and returns which it has made ignored, bit n-1 for signal n. After an error,
// everything is as it was.
func (s Signals) set() (ignored uint64, restore func(), err error) {
	awaitNone(pending, s.Stop) // what was sent before is for the handlers
	ignored, restore, err = setActions(s.Stop, s.Ignore)
	if err != nil {
		return 0, nil, err
	}
	if len(s.Stop) > 0 || s.Late != nil {
		await(s.Stop)
	}
	if s.Late == nil {
		return ignored, restore, nil
	}
	if late := s.Late(); late != nil {
		restore()
		return 0, nil, LateSignal{late}
	}
	return ignored, restore, nil
}
