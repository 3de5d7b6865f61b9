package master

import (
	"fmt"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/internal/proc"
	"github.com/gopherpack/gopherpack/internal/scoreboard"
	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/procgroup"
)

// event is something that the core is told.
type event any

type (
	// begin is the first. state is what a predecessor knew; nil if there was none.
	begin struct {
		endpoints []wire.Endpoint
		spec      spec
		state     *handoff.State
	}

	// process is something that happened to a worker process.
	process struct {
		ref      roster.Ref
		kind     procgroup.EventKind
		pid      int
		err      error
		crash    string // why it has crashed, in a line; "" if it has not
		failures int
		retry    time.Duration
		uptime   time.Duration
	}
	connected struct { // its control socket is being read
		ref     roster.Ref
		pid     int
		started time.Time
		share   float64 // of the limits of Recycle
	}
	gone          struct{ ref roster.Ref }     // its control socket has ended
	terminate     struct{ ref roster.Ref }     // it is to be asked to end
	memberStopped struct{ generation, id int } // the group starts no process of it any more
	groupEnded    struct {
		generation int
		err        error
	}
	message struct { // from a worker
		ref    roster.Ref
		msg    wire.Message
		lost   bool // a descriptor came with it that could not be received
		parcel parcel
	}
	broken struct { // what a worker sends cannot be
		ref roster.Ref
		err error
	}
	undelivered struct { // a connection that was forwarded has come back
		from     roster.Ref
		endpoint wire.Endpoint
		parcel   parcel
	}

	// What hands report. change is for which change they did it, since an answer may come when that was given up.
	opened struct {
		endpoint wire.Endpoint
		info     sockets.Info // of it, or of one that it is the same as
		beside   []wire.Endpoint
		err      error
	}
	grown struct { // sockets for so many workers
		change    int
		workers   int
		renewed   []sockets.Renewed // since their files were lost
		addresses map[wire.Endpoint]string
		err       error
	}
	planned struct {
		change int
		plan   plan.Plan
		err    error
	}
	directed struct{ err error } // the kernel chooses among the sockets of so many workers
	quiesced struct {
		ref roster.Ref
		err error
	}
	steeringStarted struct{ err error }
	steeringFailed  struct{ err error }
	steeringJoined  struct {
		ref  roster.Ref
		slot int // -1 if there is none
	}
	steeringHung struct {
		worker int
		hung   bool
	}
	attached struct { // an endpoint is steered, in a mode that has a reason if it is not the best
		endpoint wire.Endpoint
		mode     string
		reason   error
		err      error
	}
	filesLost struct{} // of Unix sockets
	queues    struct { // what was found in a look at queues, and at what workers report
		waiting []sockets.Ref
		tallies map[roster.Ref]scoreboard.Report
	}
	tallied struct { // what workers report now
		tallies map[roster.Ref]scoreboard.Report
	}
	examined struct {
		ref   roster.Ref
		state string
		times proc.Times
		why   doubt
	}
	sampled     struct{ resident map[roster.Ref]uint64 }
	cpusChanged struct{ from, to string }
	hooked      struct { // a hook has returned
		name   hook
		change int
		err    error
	}
	imageOpened struct {
		change int
		name   string
		err    error
	}
	preflown struct {
		change int
		spec   spec
		err    error
	}
	released   struct{}
	execFailed struct {
		err  error
		late error // a signal to stop that came too late for this program to be replaced; nil if there was none
	}
	newTicketKey struct{ key []byte }

	// What users and operators ask for.
	stop      struct{ why error }
	force     struct{}
	reload    struct{ reply reply }
	upgradeTo struct{ reply reply }
	scale     struct {
		to, by int // by, if to is 0
		reply  reply
	}
	abandon struct { // a change that was asked for, as nobody waits for it any more
		reply reply
		why   error
	}
	reopen struct{}
	tick   struct{} // nothing but time has passed
)

// reply is told what came of a change; nil if nobody waits. Who waits is refused where a signal's wish is remembered.
type reply chan<- error

func (r reply) send(err error) {
	if r != nil {
		r <- err // it has room
	}
}

// parcel is a connection that is handed over, in the hands of the loop; nil in transcripts.
type parcel any

// spec is what workers a generation has.
type spec struct {
	plan  plan.Plan
	user  string
	image int // they run the executable that this change upgrades to; 0 if they run another
}

// hook names one of the user's functions.
type hook string

const (
	onStart   hook = "OnStart"
	onUpgrade hook = "OnUpgrade"
	onReopen  hook = "OnReopen"
)

// describe returns a line for a transcript.
func describe(v any) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", v), "master.")
	return strings.TrimSpace(name + " " + strings.Trim(fmt.Sprintf("%v", v), "{}"))
}
