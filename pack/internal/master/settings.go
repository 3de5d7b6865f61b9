// Package master is the master of a pack: it keeps the sockets, starts the workers and replaces them, and serves
// nothing.
//
// One goroutine owns its state, a core: events come in, effects go out, and a core does nothing else. It neither waits
// nor reads, writes, sends, logs, resolves names or executes; for that there are hands, which report back as events. So
// nothing that a worker, a log's reader, a resolver or a hook does can hold up a decision, and all decisions can be
// tested without a process.
package master

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/output"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// Settings are those of a pack that its core decides by. Durations are positive.
type Settings struct {
	ShutdownTimeout time.Duration
	ReadyTimeout    time.Duration
	MinReady        time.Duration
	HangTimeout     time.Duration
	BeatEvery       time.Duration
	Hang            HangPolicy
	Recycle         Recycle
	Rolling         bool
	MaxGenerations  int
	Placement       affinity.Policy // for the log
	Memory          uint64          // that the pack's processes may use together, for the log; 0 if there is no limit
	PID             int
	Managed         bool          // a service manager wants to know how the pack is
	Watchdog        time.Duration // after which it misses a sign of life; 0 if it wants none
	Kept            bool          // it keeps sockets for who comes after this process
	Passed          bool          // it has passed some
	Steered         bool          // there is a Steering
	NoRebalance     bool
	CanUpgrade      bool
	OnStart         bool // there is such a hook
	OnUpgrade       bool
	OnReopen        bool
}

// HangPolicy is what is done about a worker that hangs; see pack.HangPolicy.
type HangPolicy int

const (
	KillHung HangPolicy = iota
	ReportHung
	IgnoreHung
)

// Recycle says when a worker is replaced; see pack.Recycle.
type Recycle struct {
	Requests   uint64
	Age        time.Duration
	Memory     uint64
	MemoryHard uint64
}

// Steering is pack.Steering.
type Steering interface {
	Start(workers []affinity.Set) error
	Mode() (mode string, reason error)
	Attach(name string, sockets []syscall.Conn, inherited *os.File) error
	Export(name string) (*os.File, error)
	Join() (slot int, err error)
	Leave(slot int)
	Board() (*os.File, error)
	Up(worker, slot int) error
	Drain(worker int) error
	Down(worker int) error
	Watch(f func(worker int, hung bool))
	Close() error
}

// Config is what a master runs with.
type Config struct {
	Settings
	Log       *slog.Logger
	Endpoints []wire.Endpoint // to be open before the first worker starts
	Files     sockets.Files   // how those of Unix sockets are made
	Plan      plan.Plan       // of the first generation
	Request   plan.Request    // for later ones
	User      string          // that workers run as, for the state
	Steering  Steering        // nil if there is none

	// Control is called with each socket before it is bound; nil if there is none.
	Control func(network, address string, c syscall.RawConn) error

	OnStart   func(context.Context) error
	OnUpgrade func(context.Context) error
	OnReopen  func()

	// Command returns the command of a worker. image is what it is to run, "" for what this process runs.
	Command func(w WorkerSpec) (*exec.Cmd, error)
	// Start starts it, on its CPUs.
	Start func(w WorkerSpec, cmd *exec.Cmd) error

	// Output writes what workers write to a Stdout or a Stderr that their command leaves nil. It may take its time.
	Output *output.Writer

	Service systemd.Service // what systemd has said when it started this process

	Signals Signals
	// HangUpIgnored is set if the signal HUP was ignored when this program began.
	HangUpIgnored bool

	PreflightEnv []string // for the program that is tried out, beside what package upgrade tells it
}

// WorkerSpec says who a worker is to be.
type WorkerSpec struct {
	ID, Generation int
	Plan           plan.Plan
	User           string
	Image          string   // path to execute; "" for what this process runs
	Crash          *os.File // to which it is to write why it crashes; nil if there is none
}

// Signals are what signals ask for.
type Signals struct {
	Stop, Reload, Upgrade, More, Fewer, Reopen []os.Signal
	Continue                                   []os.Signal // this program was stopped, and goes on
	Stacks                                     []os.Signal // have a worker write its stacks and end
}
