package master

import (
	"log/slog"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// effect is something that the core wants done. Those that say so are reported back as an event.
type effect any

type (
	// For the group of a generation.
	launch struct {
		generation int
		spec       spec
		held       bool // workers are started one by one
		adopt      bool // it takes over the processes that a predecessor, or this program, let go of
	}
	startMember    struct{ generation, id int }
	stopMember     struct{ generation, id int } // memberStopped
	stopGeneration struct{ generation int }
	dropGeneration struct{ generation int } // it has ended
	killGeneration struct{ generation int }

	// For a worker process.
	restart struct{ ref roster.Ref } // ask it to end, and start another
	proven  struct{ ref roster.Ref } // it is ready
	kill    struct {
		ref roster.Ref
		why error
	}
	fail struct { // why it is about to end
		ref roster.Ref
		why error
	}
	killWithStacks struct { // after it had the time to write its stacks
		ref roster.Ref
		why error
	}
	send struct {
		ref    roster.Ref
		msg    wire.Message
		socket *sockets.Ref // whose descriptor goes along; nil if none does
		board  bool         // the scoreboard's does
		tally  bool         // that of the worker's own does
	}
	forward struct { // a connection; comes back as undelivered, or not at all
		to, from roster.Ref
		endpoint wire.Endpoint
		writes   wire.Endpoint // how who gets it writes that
		parcel   parcel
	}
	drop struct{ parcel parcel } // a connection that nobody takes

	// For the sockets.
	openSockets struct { // opened
		endpoint wire.Endpoint
		workers  int
		leaving  []wire.Endpoint // who asks does not serve them
	}
	growSockets struct { // grown
		change  int
		workers int
		steered map[wire.Endpoint]bool
	}
	directSockets struct { // directed
		workers int
		steered map[wire.Endpoint]bool
	}
	directPackets struct { // of packet sockets, to those of the workers that are not absent
		workers int
		absent  []int
	}
	directQUIC     struct{ quicPlaces }
	settleSockets  struct{} // all addresses are known: what systemd has passed beside is not served
	checkFiles     struct{} // filesLost, if some are
	shrinkSockets  struct{ workers int }
	keepSockets    struct{ used []wire.Endpoint }
	quiesceSockets struct { // quiesced
		ref       roster.Ref // who asked
		ids       []int
		final     bool
		endpoints []wire.Endpoint // all sockets of these, if it is not final
	}
	quiesceEndpoint struct{ endpoint wire.Endpoint }
	deferSockets    struct {
		endpoint wire.Endpoint
		on       bool
	}
	closeSockets struct{}

	// For the steering.
	startSteering struct{ plan plan.Plan } // steeringStarted
	steer         struct {
		worker int
		to     roster.Steer
	}
	attachSteering struct { // attached
		endpoint wire.Endpoint
		workers  int
	}
	joinSteering  struct{ ref roster.Ref } // steeringJoined
	leaveSteering struct {
		ref  roster.Ref
		slot int
	}

	// For other hands.
	logLine struct {
		level slog.Level
		msg   string
		args  []any
	}
	runHook struct { // hooked
		name   hook
		change int
	}
	endHooks struct{} // their contexts end
	examine  struct { // examined
		ref roster.Ref
		pid int
		why doubt
	}
	readTallies struct{}                          // tallied
	sample      struct{ pids map[roster.Ref]int } // sampled
	makePlan    struct {                          // planned
		change  int
		workers int
	}
	openImage struct{ change int } // imageOpened
	preflight struct {             // preflown
		change   int
		question handoff.Question
	}
	dropImage struct{ change int }
	release   struct{} // released
	execute   struct { // execFailed, if it returns
		change int
		state  *handoff.State
		back   bool // to the previous program
	}
	addTicketKey struct{}                  // newTicketKey
	notify       struct{ systemd.Message } // the service manager
	settled      struct{}                  // what was inherited is taken over for good
	atStep       struct{ step Step }
	done         struct{ err error } // the pack has ended
)

// Step is a point in a change at which tests make something go wrong.
type Step string

const (
	StepPreflight Step = "preflight" // the new executable is about to be started as a master
	StepLaunched  Step = "launched"  // the new workers are starting
	StepReady     Step = "ready"     // they are ready, and prove themselves
	StepFreeze    Step = "freeze"    // they have; nobody will listen to workers
	StepExec      Step = "exec"      // nobody does
	StepTakeOver  Step = "takeOver"  // in the new program, which has not taken anything yet
	StepAdopted   Step = "adopted"   // it has adopted the workers
	StepReplaced  Step = "replaced"  // the old ones have been told to drain
)
