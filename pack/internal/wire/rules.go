package wire

import (
	"fmt"
	"slices"
	"time"
)

// State is how far a worker has come, as the master knows it.
type State int

const (
	Joining  State = iota // it has not said hello
	Starting              // it has, and is not ready
	Serving               // it is ready
	Draining              // it was told to drain
	Closing               // it has closed its sockets, and finishes what it has
)

var stateNames = []string{"joining", "starting", "serving", "draining", "closing"}

func (s State) String() string { return stateNames[s] }

// rule is what a worker may send of one type.
type rule struct {
	states []State
	files  int // descriptors that come with it
	size   int // bytes, at most
	once   bool
}

const (
	small = 256 // a message without texts
	named = 1 << 10
	texty = 6*MaxText + named // a text of controls, escaped
)

// rules are what a worker may send. A message may be on its way when the master tells the worker to drain, so what may
// be said before may be said a while after, too.
var rules = map[Type]rule{
	Hello:         {states: []State{Joining}, size: small, once: true},
	Listen:        {states: []State{Starting, Draining}, size: named},
	Ready:         {states: []State{Starting, Draining}, size: small, once: true},
	Beat:          {states: []State{Starting, Serving, Draining, Closing}, size: texty},
	Failed:        {states: []State{Starting, Serving, Draining}, size: texty, once: true},
	Stopping:      {states: []State{Starting, Serving, Draining, Closing}, size: small, once: true},
	Quiesce:       {states: []State{Draining}, size: small, once: true},
	Closed:        {states: []State{Draining}, size: small, once: true},
	Handover:      {states: []State{Serving, Draining, Closing}, files: 1, size: named},
	HandoverEnded: {states: []State{Serving, Draining, Closing}, size: small},
	Covered:       {states: []State{Serving, Draining, Closing}, size: texty},
	Drained:       {states: []State{Serving, Draining, Closing}, size: named},
	End:           {states: []State{Draining, Closing}, size: small, once: true},
}

const (
	maxAddress  = 512  // of an endpoint; a Unix socket's path is 108 at most, a host's name 253
	maxIndex    = 1024 // of endpoints that are written alike
	maxSocket   = 1 << 16
	maxCut      = 1 << 24 // connections
	maxConns    = 1 << 24
	maxProtocol = 1 << 16
)

// CheckFromWorker reports what is wrong with a message of a worker, of which the body had size bytes, by itself: type,
// size, descriptors, and the ranges of its fields. lost says that descriptors came with it that this process could not
// receive.
func (m *Message) CheckFromWorker(size, files int, lost bool) error {
	r, ok := rules[m.Type]
	switch {
	case !ok:
		return fmt.Errorf("a message of type %.40q, which no worker sends", m.Type)
	case size > r.size:
		return fmt.Errorf("%s of %d bytes: at most %d", m.Type, size, r.size)
	case files != r.files && !lost, lost && r.files == 0:
		return fmt.Errorf("%s with %d descriptors: there must be %d", m.Type, files, r.files)
	case len(m.Error) > MaxText:
		return fmt.Errorf("%s with a text of %d bytes: at most %d", m.Type, len(m.Error), MaxText)
	case m.Version < 0 || m.Version > maxProtocol, m.Socket < 0 || m.Socket > maxSocket, m.Cut < 0 || m.Cut > maxCut:
		return fmt.Errorf("%s with a number that cannot be: version %d, socket %d, cut %d",
			m.Type, m.Version, m.Socket, m.Cut)
	}
	switch m.Type {
	case Listen, Handover, Covered, Drained:
		if m.Endpoint == nil {
			return fmt.Errorf("%s without an endpoint", m.Type)
		}
		return m.Endpoint.check()
	case Beat:
		if v := m.Vitals; v == nil || v.Conns < 0 || v.Conns > maxConns || len(v.Probe) > MaxText {
			return fmt.Errorf("%s with vitals that cannot be", m.Type)
		}
	}
	return nil
}

func (e *Endpoint) check() error {
	if len(e.Network) > 16 || len(e.Address) > maxAddress || e.Index < 0 || e.Index > maxIndex {
		return fmt.Errorf("an endpoint that cannot be: %.16q %.40q %d", e.Network, e.Address, e.Index)
	}
	return nil
}

// MaySend reports whether a worker may send a message of a type in a state, of which it has sent those in said.
func MaySend(t Type, s State, said map[Type]bool) error {
	r := rules[t]
	switch {
	case !slices.Contains(r.states, s):
		return fmt.Errorf("%s while %v", t, s)
	case r.once && said[t]:
		return fmt.Errorf("%s twice", t)
	}
	return nil
}

// Meter bounds how often a worker may send. The zero value is ready to use.
type Meter struct {
	tokens float64
	last   time.Time
}

const (
	// burst is how many messages may come at once, and perSecond how many in the long run. The most that a worker of
	// ours sends is the connections that it hands over when it drains, which are not counted: each waits until the one
	// before has gone.
	burst     = 500
	perSecond = 200

	// MaxShed is how many connections a worker is asked to hand over at once that does not drain: five times a second,
	// at most.
	MaxShed = 32
)

// Count counts a message of a worker in a state, and reports whether there were too many.
func (m *Meter) Count(t Type, s State, now time.Time) error {
	if t == Handover && s >= Draining {
		return nil
	}
	if m.last.IsZero() {
		m.tokens = burst
	} else {
		m.tokens = min(burst, m.tokens+now.Sub(m.last).Seconds()*perSecond)
	}
	m.last = now
	if m.tokens < 1 {
		return fmt.Errorf("more than %d messages a second", perSecond)
	}
	m.tokens--
	return nil
}
