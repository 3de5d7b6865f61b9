package master

import (
	"time"

	"github.com/gopherpack/gopherpack/internal/scoreboard"
	"github.com/gopherpack/gopherpack/pack/internal/health"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// endpoint is an address that sockets are open for, or about to be.
type endpoint struct {
	sockets int // 0 while they are being opened
	shared  bool
	defers  bool // its sockets let connections in when clients have spoken
	address string
	beside  []wire.Endpoint // whose sockets listen on some of it
	given   bool            // systemd has passed the first, and listens on it before and after
	steered bool            // a program that knows the sockets chooses among them
	waiting []roster.Ref    // workers that have asked for theirs meanwhile
}

// cover is a worker that serves the sockets of another.
type cover struct {
	by   roster.Ref
	sent map[wire.Endpoint]bool
}

// generation is one set of workers.
type generation struct {
	spec
	number  int
	held    bool // workers are started one by one
	up      bool // every worker was ready once
	stopped bool // it was told to stop
	slow    bool // the log has told that one takes long to be ready
	members []member
	ready   map[int]bool // until it is up
	inPlace map[int]bool // workers that serve before it is the current generation
	uses    map[wire.Endpoint]bool
	defers  map[wire.Endpoint]bool          // those of which all its workers say that clients speak first
	as      map[wire.Endpoint]wire.Endpoint // those that its workers write otherwise, and the names that they are known by
	places  map[int]int                     // of QUIC, by worker: whose socket it has, see package sockets
	sealed  bool                            // some worker was ready: there will be no other endpoints
}

// member is a worker of a generation, by its number.
type member struct {
	ref      roster.Ref // of its process; Attempt 0 if it has none
	pid      int
	started  time.Time
	failures int
	failed   time.Time // the last time
	silent   bool      // the control socket of its process has ended
	mute     bool      // its process has said nothing: it has not come as far as Run
	crash    string    // why its last process has crashed; "" if it has not
}

// healthy is for how long a worker must not have failed for one failure to be forgotten, as its group does.
const healthy = 30 * time.Second

// failuresAt returns how often it has failed in a row.
func (m *member) failuresAt(now time.Time) int {
	if m.failures == 0 {
		return 0
	}
	return max(0, m.failures-int(now.Sub(m.failed)/healthy))
}

// handsOver reports whether connections of it may be on their way to another worker.
func (w *worker) handsOver() bool { return w.state >= wire.Draining || w.shedding }

// worker is a worker process that the master listens to.
type worker struct {
	roster.Ref
	generation *generation
	pid        int
	started    time.Time
	state      wire.State
	said       map[wire.Type]bool
	pulse      *health.Pulse // nil until it serves
	meter      wire.Meter
	share      float64                // of the limits of Recycle
	asked      map[wire.Endpoint]bool // its sockets, which it has got
	defers     bool                   // clients of the one that it has asked for last speak first
	slot       int                    // where it reports to the steering, or slotNone, slotPending
	tally      scoreboard.Report      // what it reports to the master; zero if it does not
	shedding   bool                   // it was asked to hand over connections
	detached   bool                   // it is adopted, and not listened to yet
	ending     bool                   // it is being killed: what it says does not count
	restarting bool                   // it was asked to end, and another follows
	hostile    bool                   // it does not keep to the protocol, and its end will say so
	renew      string                 // why it is to be replaced; "" if it is not
	unfit      time.Time
	memory     uint64
	draining   map[loan]bool // sockets that are about to go, which it serves
}
