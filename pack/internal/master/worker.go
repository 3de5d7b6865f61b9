package master

import (
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/health"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// endpoint is an address that sockets are open for, or about to be.
type endpoint struct {
	sockets int // 0 while they are being opened
	shared  bool
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
	as      map[wire.Endpoint]wire.Endpoint // those that its workers write otherwise, and the names that they are known by
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
}

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
	slot       int                    // where it reports, or slotNone, slotPending
	detached   bool                   // it is adopted, and not listened to yet
	ending     bool                   // it is being killed: what it says does not count
	restarting bool                   // it was asked to end, and another follows
	hostile    bool                   // it does not keep to the protocol, and its end will say so
	renew      string                 // why it is to be replaced; "" if it is not
	unfit      time.Time
	memory     uint64
	draining   map[loan]bool // sockets that are about to go, which it serves
}
