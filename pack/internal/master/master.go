package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/terminal"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/procgroup"
	"github.com/gopherpack/gopherpack/upgrade"
)

// Master runs a pack: a core, and the hands that do what it decides.
type Master struct {
	Config
	core  *core
	inbox inbox
	ended chan struct{} // closed when the core is not called any more

	log      *logHand
	manager  *managerHand
	sockets  *sockets.Keeper
	work     *serial // on the sockets, one after the other
	steering *steeringHand
	tallies  tallies
	crashes  crashes
	signals  signalHand
	self     *upgrade.Image // what this process runs
	path     string         // where that will be

	hooks    context.Context // ends when the pack is to stop
	endHooks context.CancelFunc
	asked    atomic.Bool // to stop

	estate   *upgrade.Estate // what a predecessor left; nil if there was none, or all is settled
	groups   map[int]*group
	adopted  map[int]*procgroup.State // groups that are to be adopted
	mu       sync.Mutex
	images   map[int]*upgrade.Image // what changes upgrade to, by their numbers
	members  map[roster.Ref]*spoken // those that are spoken to
	foreign  map[int]bool           // generations whose workers run the program that estate.Previous is
	watchers sync.WaitGroup
}

// New returns a master. It does nothing before Run.
func New(c Config) *Master {
	now := time.Now()
	m := &Master{
		Config: c, core: newCore(c.Settings, now), ended: make(chan struct{}), inbox: inbox{ready: make(chan struct{}, 1)},
		log: newLogHand(c.Log), sockets: sockets.New(c.Files), work: newSerial(),
		groups: map[int]*group{}, adopted: map[int]*procgroup.State{}, members: map[roster.Ref]*spoken{},
		foreign: map[int]bool{}, images: map[int]*upgrade.Image{}, crashes: crashes{files: map[seat]*os.File{}},
	}
	m.hooks, m.endHooks = context.WithCancel(context.Background())
	m.steering = newSteeringHand(m)
	m.manager = newManagerHand(c.Service, m.log)
	m.sockets.Control = c.Control
	m.sockets.Waits = func(e wire.Endpoint, pids []int) {
		m.log.put(logLine{slog.LevelWarn, sockets.WaitsFor(pids), []any{"address", e.String(), "pids", pids}})
	}
	return m
}

// threads is how many a master may need at once: for a few system calls that wait, and the starts of processes.
const threads = 16

// Run runs the pack until ctx ends or a signal stops it. estate is what a predecessor left; nil if there was none.
// wrong is what is wrong with the pack already: it keeps it from starting, and a predecessor goes on.
func (m *Master) Run(ctx context.Context, estate *upgrade.Estate, wrong error) error {
	spareThreads(threads)
	m.signals.terminal = terminal.Controls()
	m.signals.nohup.Store(estate == nil && m.HangUpIgnored)
	m.signals.begin(m)
	defer m.signals.end()
	defer m.log.Flush()
	first := begin{endpoints: m.Endpoints, spec: spec{plan: m.Plan, user: m.User}}
	if estate != nil {
		AtStep(StepTakeOver)
		m.estate = estate
		var err error
		if first.state, err = m.inherit(estate, wrong); err != nil {
			return m.handBack(estate, err)
		}
	} else if wrong != nil {
		return wrong
	}
	if estate == nil {
		m.manager.begin(m.Watchdog, m.sockets)
	}
	err := m.prepare()
	if err != nil && estate != nil {
		return m.handBack(estate, err)
	}
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { m.askToStop(context.Cause(ctx)) })()
	watching, unwatch := context.WithCancel(context.Background())
	m.watch(watching)
	m.inbox.putFirst(first)
	err = m.loop()
	unwatch()
	m.close()
	return err
}

// prepare opens what this process runs, and finds out where its next version will be.
func (m *Master) prepare() (err error) {
	if m.path == "" {
		if m.path, err = upgrade.Path(); err != nil {
			return err
		}
	}
	m.self, err = upgrade.RunningImage()
	return err
}

// close ends all hands.
func (m *Master) close() {
	m.endHooks()
	m.work.stop()
	m.sockets.End()
	m.manager.flush()
	m.steering.close()
	if m.estate != nil {
		m.estate.Close()
	}
	m.self.Close()
	m.crashes.close()
	m.watchers.Wait()
}

// askToStop has the pack stop, because of why.
func (m *Master) askToStop(why error) {
	m.asked.Store(true)
	m.post(stop{why})
}

// Reload does what the signal to reload does, and returns when that is done. When ctx ends it is given up.
func (m *Master) Reload(ctx context.Context) error {
	return m.ask(ctx, func(r reply) event { return reload{r} })
}

// Upgrade does what the signal to upgrade does. It returns only if that fails.
func (m *Master) Upgrade(ctx context.Context) error {
	return m.ask(ctx, func(r reply) event { return upgradeTo{r} })
}

// SetWorkers changes the number of workers.
func (m *Master) SetWorkers(ctx context.Context, n int) error {
	return m.ask(ctx, func(r reply) event { return scale{to: n, reply: r} })
}

var errEnded = errors.New("the pack has stopped")

func (m *Master) ask(ctx context.Context, e func(reply) event) error {
	answer := make(chan error, 1)
	m.post(e(answer))
	canceled := ctx.Done()
	for {
		select {
		case err := <-answer:
			return err
		case <-canceled:
			canceled = nil
			m.post(abandon{answer, context.Cause(ctx)})
		case <-m.ended:
			select {
			case err := <-answer:
				return err
			default:
				return errEnded
			}
		}
	}
}

// item is an event on its way to the core.
type item struct {
	event   event
	handled chan struct{} // closed when it is; nil if nobody waits
}

// inbox is what has been posted. Nobody who posts waits for the core; who could post without end waits by postAndWait.
type inbox struct {
	mu    sync.Mutex
	items []item
	ready chan struct{} // has something in it when there may be items
}

func (b *inbox) put(i item) { b.change(func(items []item) []item { return append(items, i) }) }

// putFirst puts an event before those that have come already, such as a signal to stop.
func (b *inbox) putFirst(e event) {
	b.change(func(items []item) []item { return slices.Insert(items, 0, item{event: e}) })
}

func (b *inbox) change(f func([]item) []item) {
	b.mu.Lock()
	b.items = f(b.items)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *inbox) take() []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}

// post has the core told of an event.
func (m *Master) post(e event) { m.inbox.put(item{event: e}) }

// postAndWait is post, and waits until the event has been handled.
func (m *Master) postAndWait(e event) {
	done := make(chan struct{})
	m.inbox.put(item{e, done})
	select {
	case <-done:
	case <-m.ended:
	}
}

// loop is the owner of the core. It returns when the pack has ended.
func (m *Master) loop() error {
	defer close(m.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var items []item
		select {
		case <-m.inbox.ready:
			items = m.inbox.take()
		case <-timer.C:
			items = []item{{event: tick{}}}
		}
		for _, i := range items {
			for _, e := range m.core.handle(i.event, time.Now()) {
				if end, ok := e.(done); ok {
					return end.err
				}
				m.perform(e)
			}
			if i.handled != nil {
				close(i.handled)
			}
		}
		if next := m.core.next(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// inherit takes over what a predecessor left, as far as that can be undone.
func (m *Master) inherit(estate *upgrade.Estate, wrong error) (*handoff.State, error) {
	if err := errors.Join(estate.Err(), wrong); err != nil {
		return nil, err
	}
	s, err := handoff.Parse(estate.State, len(estate.Files), estate.Returned)
	if err != nil {
		return nil, fmt.Errorf("the state of the predecessor: %w", err)
	}
	m.path = s.Image
	m.log.Lose(s.LostLines)
	m.signals.nohup.Store(s.NoHUP)
	inherited, err := m.sockets.Import(s.Sockets, estate.Files)
	if err != nil {
		return nil, err
	}
	m.manager.settled = true
	m.manager.keep(m.sockets)
	m.steering.inherit(inherited)
	for i := range s.Generations {
		g := &s.Generations[i]
		for id, n := range g.Controls {
			if g.Group.Members[id].Control, err = duplicate(estate.Files[n]); err != nil {
				return nil, err
			}
		}
		for id, n := range g.Crashes {
			f, err := duplicate(estate.Files[n])
			if err != nil {
				return nil, err
			}
			m.crashes.put(seat{g.Number, id}, f)
		}
		for id, n := range g.Stdouts {
			if g.Group.Members[id].Stdout, err = duplicate(estate.Files[n]); err != nil {
				return nil, err
			}
		}
		for id, n := range g.Stderrs {
			if g.Group.Members[id].Stderr, err = duplicate(estate.Files[n]); err != nil {
				return nil, err
			}
		}
		m.adopted[g.Number] = g.Group
		m.foreign[g.Number] = (g.Number == s.Current) == (s.Returned != "")
	}
	return s, nil
}

// handBack becomes the predecessor's program again, since this one cannot go on, and returns why it cannot do that,
// either.
func (m *Master) handBack(estate *upgrade.Estate, why error) error {
	if estate.Returned != "" {
		return fmt.Errorf("the old executable cannot go on after a failed upgrade (%s): %w", estate.Returned, why)
	}
	m.log.Flush()
	err := becomeAgain(estate, why, m.signals.during(m))
	return fmt.Errorf("%w; and the previous executable could not be gone back to: %w", why, err)
}

// These are variables for tests.
var (
	// AtStep is called at each step of a change, in the goroutine of the core.
	AtStep = func(Step) {}

	// Become is upgrade.Become.
	Become      = upgrade.Become
	becomeAgain = (*upgrade.Estate).HandBack
)

// closeFiles closes files, which may be nil.
func closeFiles(files []*os.File) {
	for _, f := range slices.Clone(files) {
		if f != nil {
			f.Close()
		}
	}
}
