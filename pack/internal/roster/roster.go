// Package roster knows what state a worker is in, and who is to serve which socket. It is pure: facts in, wishes out.
package roster

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// Ref names one worker process: which start of which worker of which generation. No two have the same.
type Ref struct {
	Generation int `json:"generation"`
	ID         int `json:"id"`
	Attempt    int `json:"attempt"`
}

// Event is what happens to a worker process.
type Event int

const (
	SaidHello Event = iota
	SaidReady
	WasTold // to drain
	SaidClosed
)

// next is what becomes of a worker, by state and event. Where there is nothing, the event means nothing in that state:
// it comes late, and the state stays. That a process ends is no row: whatever its state, it is forgotten. What a worker
// may not say in a state does not come here; see wire.MaySend.
var next = map[Event]map[wire.State]wire.State{
	SaidHello:  {wire.Joining: wire.Starting},
	SaidReady:  {wire.Starting: wire.Serving},
	WasTold:    {wire.Starting: wire.Draining, wire.Serving: wire.Draining},
	SaidClosed: {wire.Draining: wire.Closing},
}

// Next returns the state that follows.
func Next(s wire.State, e Event) wire.State {
	if to, ok := next[e][s]; ok {
		return to
	}
	return s
}

// Fact is what is known of a worker process.
type Fact struct {
	Ref
	State    wire.State
	Entitled bool // it is of the generation that is to serve, or has taken a worker's place there
	Late     bool // it takes nothing from its queue, or gives no sign of life
	Hung     bool // the steering has found so itself, and need not be told
	Unfit    bool // it could not cover for another
	Slot     int  // where it reports; -1 if nowhere
}

// Accepting reports whether a worker accepts connections, and is to go on doing so. Nothing else decides that.
func (f *Fact) Accepting() bool { return f.State == wire.Serving && f.Entitled && !f.Late && !f.Hung }

// Steer is what the steering is told about a worker's sockets.
type Steer struct {
	State SteerState
	Slot  int // where whoever serves them reports
}

// SteerState says what comes to a worker's sockets.
type SteerState int

const (
	SteerDown  SteerState = iota // nobody serves them
	SteerDrain                   // somebody does, but no more are to come
	SteerUp                      // they are served
)

func (s SteerState) String() string { return [...]string{"down", "drain", "up"}[s] }

// Wish is how the sockets of one number are to be served.
type Wish struct {
	Server Ref // who serves them; zero if nobody does
	Cover  Ref // who serves them meanwhile; zero if nobody does, or need not
	Steer  Steer
}

// Want returns how the sockets 0 to n-1 are to be served, by what is known of all workers. covers is who covers now,
// and goes on doing so if it still can. A worker covers for the sockets after its own, so that the load of one that is
// missing goes to its neighbor, and that of several to several.
//
// Where all that accept are late, none counts as late, since nobody could do better.
func Want(n int, facts []Fact, covers map[int]Ref) []Wish {
	some := false
	for i := range facts {
		some = some || facts[i].Accepting()
	}
	if !some {
		facts = slices.Clone(facts)
		for i := range facts {
			facts[i].Late, facts[i].Hung = false, false
		}
	}
	wishes := make([]Wish, n)
	accepting := map[Ref]bool{} // those of who covers now that still accept
	for _, r := range covers {
		accepting[r] = false
	}
	unfit := map[Ref]bool{}
	for i := range facts {
		f := &facts[i]
		if f.Unfit {
			unfit[f.Ref] = true
		}
		if f.ID >= n {
			continue
		}
		w := &wishes[f.ID]
		switch {
		case f.Accepting():
			if _, covers := accepting[f.Ref]; covers {
				accepting[f.Ref] = true
			}
			if w.Server.Generation <= f.Generation { // of two, the one that came later stays
				w.Server, w.Steer = f.Ref, Steer{SteerUp, f.Slot}
			}
		case f.Hung && f.State == wire.Serving && f.Entitled && !f.Late && w.Server == (Ref{}):
			w.Steer = Steer{SteerUp, f.Slot}
		case w.Steer.State == SteerDown && (f.State == wire.Serving || f.State == wire.Draining):
			w.Steer = Steer{State: SteerDrain}
		}
	}
	free := Ref{} // the last before the first, to begin with
	for i := range wishes {
		if s := wishes[i].Server; s != (Ref{}) && !unfit[s] {
			free = s
		}
	}
	if free == (Ref{}) {
		return wishes // nobody can
	}
	for i := range wishes {
		switch w := &wishes[i]; {
		case w.Server != (Ref{}):
			if !unfit[w.Server] {
				free = w.Server
			}
		case accepting[covers[i]] && !unfit[covers[i]]:
			w.Cover = covers[i]
		default:
			w.Cover = free
		}
	}
	return wishes
}

// Compare orders processes by generation, worker and attempt.
func (r Ref) Compare(other Ref) int {
	return cmp.Or(cmp.Compare(r.Generation, other.Generation), cmp.Compare(r.ID, other.ID),
		cmp.Compare(r.Attempt, other.Attempt))
}

func (r Ref) String() string { return fmt.Sprintf("%d.%d.%d", r.Generation, r.ID, r.Attempt) }
