package master

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/health"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// stage is how far the pack has come.
type stage int

const (
	opening  stage = iota // sockets are being opened
	adopting              // the workers of a predecessor are being taken over
	hooking               // OnStart runs
	running
	leaving  // it is to stop: connections that are on their way to another worker arrive first
	stopping // workers have been told to drain
	over
)

// core is the state of a master, and what decides. It is called from one goroutine.
type core struct {
	Settings
	now time.Time // of the event that is being handled
	out []effect

	stage       stage
	begun       time.Time // the start of the pack, then of its stop
	endpoints   map[wire.Endpoint]*endpoint
	toOpen      []wire.Endpoint // before the first worker starts
	first       spec            // the first generation
	count       int             // generations, so far
	scaled      int             // how many workers there are to be, if that was changed; else 0
	generations []*generation   // those that live, the oldest first
	current     *generation     // whose workers are to serve
	workers     map[roster.Ref]*worker
	order       []*worker // the same, sorted

	dirty      bool          // something has changed of who serves
	facts      []roster.Fact // of the last look, to be used again
	wishes     []roster.Wish
	covers     map[int]*cover
	absent     *[]int       // workers whose packet sockets get nothing new, as the kernel was told; nil if it was not
	quic       *quicPlaces  // as the kernel was told; nil if it was not
	parked     []parkedConn // connections that nobody can take yet
	turn       int          // of those who take connections
	monitor    health.Monitor
	passed     time.Time          // until when the monitor's time has passed
	stuck      map[int]bool       // workers that the steering has found to hang
	surplus    map[roster.Ref]int // connections that workers have more than their share; nil if that is right
	onTheirWay bool               // some were handed over since that was found

	steering     steeringState
	steeredAmong int // workers
	steered      map[int]roster.Steer
	unattached   bool // sockets are to be steered when the steering knows who serves
	attaching    int  // endpoints whose sockets are about to be steered

	change    *change
	changes   int            // so far
	wish      handoff.Wish   // what was asked for during a change, to be done afterwards
	moved     *cpusChanged   // likewise
	frozen    bool           // nobody listens to workers
	detached  int            // workers that are adopted, and not listened to yet
	inherited *handoff.State // until what it tells of is taken over for good

	tickets   [][]byte
	ticketsAt time.Time

	told    outward // what the service manager knows
	said    string  // its last words to it
	trouble string  // what came of the last change, if it failed

	why       error // of the stop
	failure   error // why the pack ends, if it is not asked to
	forced    bool
	hookRuns  bool // OnStart
	reopening bool // OnReopen
	cut       int  // connections, in the stop

	timers map[timer]time.Time
}

// timer is something that is due at a time.
type timer int

const (
	lookTimer    timer = iota // at the workers
	recycleTimer              // whether one is to be replaced
	balanceTimer              // whether one has more than its share
	ticketTimer
	parkTimer     // parked connections are lost
	changeTimer   // the phase of the change has lasted long enough, or too long
	stopTimer     // the stop has lasted too long
	adoptTimer    // adopting has
	hookTimer     // OnReopen has
	steeringTimer // the start of the steering has
	watchdogTimer // the service manager wants a sign of life
	extendTimer   // it is to be asked to wait on
)

func newCore(s Settings, now time.Time) *core {
	return &core{
		Settings: s, now: now, begun: now, passed: now,
		endpoints: map[wire.Endpoint]*endpoint{},
		workers:   map[roster.Ref]*worker{},
		covers:    map[int]*cover{},
		stuck:     map[int]bool{},
		timers:    map[timer]time.Time{},
		monitor:   health.Monitor{Timeout: s.HangTimeout},
	}
}

// emit has something done.
func (c *core) emit(e ...effect) { c.out = append(c.out, e...) }

func (c *core) log(level slog.Level, msg string, args ...any) { c.emit(logLine{level, msg, args}) }

func (c *core) logWorker(level slog.Level, w *worker, msg string, args ...any) {
	c.log(level, msg, append([]any{"worker", w.ID, "pid", w.pid}, args...)...)
}

// handle takes note of an event, and returns what is to be done.
func (c *core) handle(e event, now time.Time) []effect {
	c.now, c.out = now, nil
	if d := now.Sub(c.passed); d > 0 { // what the master itself has missed does not count
		c.monitor.Pass(min(d, 2*max(c.BeatEvery, health.Look)))
		c.passed = now
	}
	c.expire()
	if c.stage != over {
		c.on(e)
	}
	for range 1000 { // each step brings the next; a bound, since a mistake must not hold up everything
		if c.dirty {
			c.reconcile()
		}
		if !c.advance() && !c.dirty {
			break
		}
	}
	c.tellManager()
	return c.out
}

// next returns when the core is to be called without an event; zero if never.
func (c *core) next() (at time.Time) {
	for _, t := range c.timers {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}

func (c *core) set(t timer, in time.Duration) { c.timers[t] = c.now.Add(in) }

// expire acts on the timers that are due.
func (c *core) expire() {
	for t := lookTimer; t <= extendTimer; t++ {
		at, ok := c.timers[t]
		if !ok || at.After(c.now) || c.stage == over {
			continue
		}
		delete(c.timers, t)
		switch t {
		case lookTimer:
			c.look()
			c.set(lookTimer, c.BeatEvery)
		case recycleTimer:
			c.sampleMemory()
			c.set(recycleTimer, c.BeatEvery)
		case balanceTimer:
			c.emit(readTallies{})
		case ticketTimer:
			c.emit(addTicketKey{})
		case parkTimer:
			c.loseParked()
		case changeTimer:
			c.changeDue()
		case stopTimer:
			c.stopDue()
		case adoptTimer:
			c.adopted()
		case hookTimer:
			c.reopened()
		case steeringTimer:
			err := fmt.Errorf("the steering has not started within %v", steeringTime)
			if c.steering == steeringStarts {
				c.steeringStarted(err)
			} else if c.steeringSettles() {
				c.loseSteering(err)
			}
		}
	}
}

// on has the event handled by what it is about.
func (c *core) on(e event) {
	switch e := e.(type) {
	case tick:
	case begin:
		c.begin(e)
	case opened:
		c.opened(e)
	case attached:
		c.attached(e)
	case process:
		c.process(e)
	case connected:
		c.connected(e)
	case gone:
		c.gone(e.ref)
	case terminate:
		c.terminate(e.ref)
	case groupEnded:
		c.groupEnded(e)
	case memberStopped:
		c.memberStopped(e)
	case message:
		c.message(e)
	case broken:
		c.violates(c.workers[e.ref], e.err)
	case undelivered:
		c.forward(e.from, e.endpoint, e.parcel)
	case quiesced:
		c.quiesced(e)
	case filesLost:
		c.wanted(reload{})
	case queues:
		c.queues(e)
	case tallied:
		c.tallied(e.tallies)
		c.balance()
	case examined:
		c.examined(e)
	case sampled:
		c.sampled(e)
	case newTicketKey:
		c.newTicketKey(e.key)
	case steeringStarted, steeringFailed, steeringJoined, steeringHung:
		c.onSteering(e)
	case stop:
		c.stop(e.why)
	case force:
		c.force()
	case abandon:
		if ch := c.change; ch != nil && ch.reply == e.reply && ch.phase < freezing && ch.err == nil {
			c.abort(e.why)
		}
	case reopen:
		c.reopen()
	case hooked:
		c.hooked(e)
	case reload, upgradeTo, scale, cpusChanged:
		c.wanted(e)
	case grown, planned, directed, imageOpened, preflown, released, execFailed:
		c.report(e)
	default:
		panic(fmt.Sprintf("master: unknown event %T", e))
	}
}

// changed notes that it may have changed who serves.
func (c *core) changed() { c.dirty = true }

// find returns the generation of a number; nil if it is gone.
func (c *core) find(number int) *generation {
	for _, g := range c.generations {
		if g.number == number {
			return g
		}
	}
	return nil
}

// addWorker begins to know a worker process.
func (c *core) addWorker(g *generation, ref roster.Ref, pid int, started time.Time, share float64) *worker {
	w := &worker{
		Ref: ref, generation: g, pid: pid, started: started, share: share, slot: slotNone,
		said: map[wire.Type]bool{}, asked: map[wire.Endpoint]bool{}, draining: map[loan]bool{},
	}
	c.workers[ref] = w
	i, _ := slices.BinarySearchFunc(c.order, ref, func(w *worker, r roster.Ref) int { return w.Ref.Compare(r) })
	c.order = slices.Insert(c.order, i, w)
	return w
}

// removeWorker forgets it. One that was killed at the end of a stop has not said what that cut.
func (c *core) removeWorker(w *worker) {
	if c.stage == stopping && !w.said[wire.End] && c.now.Sub(c.begun) >= c.ShutdownTimeout {
		c.ended(w, w.pulse.Vitals().Conns)
	}
	delete(c.workers, w.Ref)
	i, _ := slices.BinarySearchFunc(c.order, w.Ref, func(w *worker, r roster.Ref) int { return w.Ref.Compare(r) })
	c.order = slices.Delete(c.order, i, i+1)
	c.monitor.End(w.Ref)
	for what := range w.draining {
		defer c.lendAgain(what)
	}
	if w.slot >= 0 {
		c.emit(leaveSteering{w.Ref, w.slot})
	}
	if w.detached {
		c.detached--
	}
	c.changed()
}

// tell sends a message to a worker, unless it cannot understand any.
func (c *core) tell(w *worker, m wire.Message) {
	if w != nil && w.state > wire.Joining && !w.ending {
		c.emit(send{ref: w.Ref, msg: w.generation.written(m)})
	}
}
