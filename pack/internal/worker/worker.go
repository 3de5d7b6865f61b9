// Package worker is the worker's side of a pack: it asks the master for sockets, serves on them, tells the master how
// it does, and drains when it is told to.
//
// A worker reports, and the master decides. A signal, or an error, ends nothing here by itself: only the master knows
// whether others serve, and whether this is the end. The end of the control socket alone means that the master is gone.
package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/logqueue"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// Handle is a server and where it serves.
type Handle struct {
	Endpoint wire.Endpoint
	Server   drain.Server // nil if there is none, which is an error
	Packets  PacketServer // of an endpoint of packets, instead
}

// Config is what a worker needs to know. Every func may be nil, but for Handles.
type Config struct {
	ID              int
	Log             *slog.Logger                       // whose lines tell which worker it is
	ShutdownTimeout time.Duration                      // how long a drain may take
	DrainDelay      func(takenOver bool) time.Duration // how long idle connections are left alone in a drain
	HangTimeout     time.Duration                      // a beat comes ten times in it, and once a second at least
	Files           uint64                             // as of RaiseFiles
	SingleP         bool                               // GOMAXPROCS stays what it is
	AcceptAtOnce    bool                               // also where clients speak first
	Tickets         *Tickets                           // for TLS sessions; nil for new ones

	// Prepare is called after OnStart, with what the worker logs to. Its context ends when the worker drains. It may be nil.
	Prepare func(context.Context, *slog.Logger) error

	// Wrap returns what is served from instead of the listener of an address.
	Wrap func(network, address string, l net.Listener) net.Listener

	Probe      func(context.Context) error // called again and again while the worker serves; its error is reported
	OnStart    func(context.Context) error // called first; its context ends when the worker drains
	Handles    func() []Handle             // called once, after Prepare
	OnShutdown func(context.Context)       // called before a drain, while the worker still accepts, if there is a master
	BeginDrain func()                      // called when it begins
	OnReopen   func()                      // called when log files are to be opened anew
	OnOrphaned func()                      // called at once when the master is gone; it may be nil

	StopSignals  []os.Signal // ask for a stop, which the master is told
	OtherSignals []os.Signal // meant for the master: they do nothing here

	exit func(status int) // os.Exit, but in tests
}

// beatEvery returns how often a worker beats.
func (c *Config) beatEvery() time.Duration {
	return min(cmp.Or(c.HangTimeout/10, time.Second), time.Second)
}

func (c *Config) drainDelay(takenOver bool) time.Duration {
	if c.DrainDelay == nil {
		return 0
	}
	return c.DrainDelay(takenOver)
}

// drainTimeout leaves a worker a little less than the master waits for it, so that it can still tell what it cut, and
// end by itself.
func (c *Config) drainTimeout() time.Duration {
	return c.ShutdownTimeout - min(c.ShutdownTimeout/10, 500*time.Millisecond)
}

// worker is a worker that runs.
type worker struct {
	*Config
	log     *slog.Logger
	lines   *logqueue.Queue // of log, for which nothing waits
	control *control
	service *service

	asked    atomic.Bool        // an answer to Listen is waited for; one is asked at a time
	answers  chan wire.Received // to it
	quiesced chan wire.Message
	drained  context.CancelCauseFunc // ends the context in which the worker serves; the first cause counts
	gone     chan struct{}           // closed when the master is gone
	probe    prober
	reopen   chan struct{}
	received chan struct{} // closed when nothing is received any more
	lost     *loss
	odd      bool // something was received that makes no sense; of the goroutine that receives
}

// order is how the worker is to drain. It is the cause of the end of the context in which the worker serves.
type order struct {
	why        error
	final      bool // nobody takes over the sockets
	handOver   bool // somebody takes idle connections
	unserved   []wire.Endpoint
	masterGone bool
}

func (o *order) Error() string { return o.why.Error() }

var (
	errMasterGone = errors.New("the master is gone")
	errTold       = errors.New("the master asked for it")
)

// Run serves as a worker until the master has it drain, or is gone, and closes control, which is its end of the control
// socket. The end of ctx asks for a stop, as a signal does. It returns nil if it could tell the master why it failed.
func Run(ctx context.Context, c Config, control *net.UnixConn) error {
	w := newWorker(&c, control)
	defer w.lines.Flush()
	defer w.close()
	_, releaseOthers := catch(c.OtherSignals)
	caught, release := catch(c.StopSignals)
	defer w.leaveSignals(caught, release, releaseOthers)
	serving, drained := context.WithCancelCause(context.WithoutCancel(ctx))
	defer drained(nil)
	w.drained = drained
	go w.receiveAll(serving)
	if err := w.control.say(wire.Message{Type: wire.Hello, Version: wire.Version}); err != nil {
		return fmt.Errorf("say hello to the master: %w", err)
	}
	defer watch(caught, release, w.stopSignal)() // what was caught until now is told now
	defer context.AfterFunc(ctx, func() { w.stopping(context.Cause(ctx)) })()

	err := w.service.start(serving)
	if err == nil && serving.Err() == nil {
		err = w.serve(serving)
	}
	if err != nil && serving.Err() == nil {
		return w.fail(serving, err)
	}
	w.drain(serving)
	return nil
}

func newWorker(c *Config, conn *net.UnixConn) *worker {
	if c.exit == nil {
		c.exit = os.Exit
	}
	if c.Tickets == nil {
		c.Tickets = NewTickets()
	}
	lines := logqueue.New(c.Log)
	log := lines.Logger()
	w := &worker{
		Config:   c,
		log:      log,
		lines:    lines,
		control:  newControl(wire.NewConn(conn)),
		answers:  make(chan wire.Received, 1),
		quiesced: make(chan wire.Message, 1),
		gone:     make(chan struct{}),
		reopen:   make(chan struct{}, 1),
		received: make(chan struct{}),
		lost:     newLoss(log),
	}
	w.service = &service{Config: c, log: log, listen: w.socket, handover: w.handover}
	return w
}

// close ends what is left of the worker, when the last has been said.
func (w *worker) close() {
	w.control.close()
	<-w.received
	select {
	case r := <-w.answers:
		r.Close()
	default:
	}
}

// serve says that the worker is ready, and returns when it is to drain, or with why it cannot go on.
func (w *worker) serve(serving context.Context) error {
	if err := w.control.say(wire.Message{Type: wire.Ready}); err != nil && !w.isGone() {
		return fmt.Errorf("tell the master that it is ready: %w", err)
	}
	go w.beat(serving)
	if !w.SingleP {
		go w.service.reporter.relieve(serving)
	}
	select {
	case err := <-w.service.broken:
		return err
	case <-serving.Done():
		return nil
	}
}

// failWait is how long a worker that serves, and fails, goes on with what still works until the master has it drain.
const failWait = time.Second

// fail tells the master why the worker ends, and ends it.
func (w *worker) fail(serving context.Context, err error) error {
	if w.control.say(wire.Message{Type: wire.Failed, Error: err.Error()}) != nil {
		return err // nobody else will say it
	}
	w.log.Debug("worker fails", "error", err)
	if w.control.isServing() {
		select {
		case <-serving.Done():
		case <-time.After(failWait):
		}
	}
	w.drained(errors.New("the worker failed"))
	w.drain(serving)
	return nil
}

// drain drains as the master said, or, if it has said nothing, as if others served on.
func (w *worker) drain(serving context.Context) {
	options := drainOptions{takenOver: true, closed: w.closed}
	asked, ok := errors.AsType[*order](context.Cause(serving))
	switch {
	case !ok:
		options.failed = context.Cause(serving)
	case asked.masterGone:
		w.log.Warn("the master is gone, stopping")
		options.takenOver, options.orphaned, options.quiesce = false, true, w.service.quiesceOwn
	case asked.final:
		options.takenOver, options.quiesce = false, w.quiesce
	default:
		options.handOver, options.unserved, options.quiesceUnserved = asked.handOver, asked.unserved, w.quiesce
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(serving), w.drainTimeout())
	defer cancel()
	cut := w.service.drain(deadline, options)
	w.lost.end()
	w.end(cut)
}
