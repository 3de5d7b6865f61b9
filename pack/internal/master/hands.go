package master

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gopherpack/gopherpack/internal/proc"
	"github.com/gopherpack/gopherpack/pack/internal/health"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// serial runs functions one after the other, in a goroutine of its own.
type serial struct {
	mu      sync.Mutex
	queue   []func()
	running bool
	stopped bool
}

func newSerial() *serial { return new(serial) }

// do has f run after all that came before. It does not wait.
func (s *serial) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.queue = append(s.queue, f)
	if !s.running {
		s.running = true
		go s.run()
	}
}

func (s *serial) run() {
	for {
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		f := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		f()
	}
}

// flush waits until all that came before has run, or done is closed.
func (s *serial) flush(done <-chan struct{}) {
	passed := make(chan struct{})
	s.do(func() { close(passed) })
	select {
	case <-passed:
	case <-done:
	}
}

// stop drops what has not begun.
func (s *serial) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue, s.stopped = nil, true
}

// perform has an effect done by whoever does such things. It waits for nothing.
func (m *Master) perform(e effect) {
	switch e := e.(type) {
	case logLine:
		m.log.put(e)
	case atStep:
		AtStep(e.step)
	case notify:
		m.manager.notify(e.Message)
	case launch:
		m.launch(e)
	case startMember:
		m.onGroup(e.generation, func(g *group) { g.StartMember(e.id) })
	case stopMember:
		m.onGroup(e.generation, func(g *group) {
			g.StopMember(e.id)
			m.post(memberStopped(e))
		})
	case stopGeneration:
		if g := m.groups[e.generation]; g != nil {
			g.stop()
		}
	case dropGeneration:
		delete(m.groups, e.generation)
	case killGeneration:
		m.onGroup(e.generation, func(g *group) { g.Kill() })
	case restart, proven, kill, fail, killWithStacks, send, forward:
		m.onWorker(e)
	case drop:
		e.parcel.(*handedOver).lose()
	case openSockets, growSockets, directSockets, directPackets, directQUIC, settleSockets, checkFiles, shrinkSockets,
		keepSockets, quiesceSockets, quiesceEndpoint, deferSockets, closeSockets:
		m.onSockets(e)
	case startSteering, attachSteering, steer, joinSteering, leaveSteering:
		m.steering.perform(e)
	case runHook:
		go m.hook(e)
	case endHooks:
		m.endHooks()
	case examine:
		go func() { m.post(examined{e.ref, proc.State(e.pid), proc.ReadTimes(e.pid), e.why}) }()
	case readTallies:
		m.post(tallied{m.tallies.readAll()})
	case sample:
		go m.sample(e.pids)
	case makePlan:
		go func() {
			p, err := m.Request.Here(e.workers)
			m.post(planned{e.change, p, err})
		}()
	case addTicketKey:
		key := make([]byte, 32)
		rand.Read(key) // never fails, and the kernel answers at once
		m.post(newTicketKey{key})
	case openImage, preflight, dropImage, release, execute, settled:
		m.onUpgrade(e)
	default:
		panic(fmt.Sprintf("master: unknown effect %T", e))
	}
}

func (m *Master) sample(pids map[roster.Ref]int) {
	all := map[roster.Ref]uint64{}
	for ref, pid := range pids {
		all[ref] = proc.Resident(pid)
	}
	m.post(sampled{all})
}

// hook calls one of the user's functions.
func (m *Master) hook(h runHook) {
	err := func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
		}()
		switch h.name {
		case onStart:
			err = m.OnStart(m.hooks)
		case onUpgrade:
			err = m.OnUpgrade(m.hooks)
		case onReopen:
			m.OnReopen()
		}
		return err
	}()
	m.post(hooked{h.name, h.change, err})
}

// onSockets does something with sockets. Opening may take long, since names are looked up; all else is done in order.
func (m *Master) onSockets(e effect) {
	if open, ok := e.(openSockets); ok {
		go func() {
			info, err := m.sockets.Open(m.hooks, open.endpoint, open.workers, open.leaving...)
			m.manager.keep(m.sockets)
			m.post(opened{open.endpoint, info, m.sockets.Beside(info.Endpoint), err})
		}()
		return
	}
	m.work.do(func() {
		defer m.manager.keep(m.sockets)
		switch e := e.(type) {
		case settleSockets:
			m.manager.settle(m.sockets)
		case growSockets:
			m.post(m.grow(e))
		case directSockets:
			m.post(directed{m.sockets.Direct(e.workers, e.steered)})
		case directPackets:
			m.sockets.DirectPackets(e.workers, e.absent)
		case directQUIC:
			m.sockets.DirectQUIC(e.fresh, e.known)
		case checkFiles:
			if m.sockets.Lost() {
				m.post(filesLost{})
			}
		case shrinkSockets:
			m.sockets.Shrink(e.workers)
		case keepSockets:
			used := map[wire.Endpoint]bool{}
			for _, one := range e.used {
				used[one] = true
			}
			m.sockets.Keep(used)
		case quiesceSockets:
			var errs []error
			for _, id := range e.ids {
				errs = append(errs, m.sockets.QuiesceFinal(id))
			}
			for _, one := range e.endpoints {
				errs = append(errs, m.sockets.QuiesceEndpoint(one))
			}
			m.post(quiesced{e.ref, errors.Join(errs...)})
		case quiesceEndpoint:
			m.sockets.QuiesceEndpoint(e.endpoint) // what cannot be kept out is served until the socket is closed
		case deferSockets:
			m.sockets.Defer(e.endpoint, e.on)
		case closeSockets:
			m.sockets.Close()
		}
	})
}

// grow opens sockets for more workers, and those anew whose files are lost.
func (m *Master) grow(e growSockets) grown {
	g := grown{change: e.change, workers: e.workers, renewed: m.sockets.Renew(m.hooks)}
	g.err = m.sockets.Grow(m.hooks, e.workers, e.steered)
	g.addresses = map[wire.Endpoint]string{}
	for _, info := range m.sockets.Infos() {
		g.addresses[info.Endpoint] = info.Address
	}
	return g
}

// watch begins to look again and again at what the kernel does not tell of by itself, until ctx ends.
func (m *Master) watch(ctx context.Context) {
	every := func(d time.Duration, do func()) {
		m.watchers.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					do()
				case <-ctx.Done():
					return
				}
			}
		})
	}
	m.watchers.Go(func() { m.lookAtQueues(ctx) })
	m.followCPUs(every)
	giveBack(every)
	m.reapOrphans(every)
}

// Queues are looked at every health.Look while connections come, if there are workers that report what they take and
// could help each other, and for so many looks after that; otherwise so often, and then when a connection comes.
const (
	busyLooks  = 4
	lookSeldom = 200 * time.Millisecond
)

// lookAtQueues looks at queues, and at what workers report, until ctx ends.
func (m *Master) lookAtQueues(ctx context.Context) {
	waiting, several := false, false
	busy := 0 // looks that are still to follow soon
	for ctx.Err() == nil {
		switch {
		case busy > 0:
			m.pause(ctx, health.Look, false)
			busy--
		case m.pause(ctx, lookSeldom, several):
			busy = 1 // who takes the connection may not have reported that yet
		}
		queued := m.sockets.Queued()
		reports, changed, taken := m.tallies.read()
		if len(queued) > 0 || waiting || changed {
			m.post(queues{queued, reports})
		}
		waiting, several = len(queued) > 0, len(reports) > 1
		if several && (waiting || taken) {
			busy = busyLooks
		}
	}
}

// pause waits for d, until ctx ends or, if awake, until a connection comes, and reports whether one has.
func (m *Master) pause(ctx context.Context, d time.Duration, awake bool) (comes bool) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if awake && m.sockets.Await(ctx) {
		return true
	}
	<-ctx.Done()
	return false
}

// giveBack has the memory go back to the system that the master does not use. What it looks at again and again becomes
// garbage, of which the runtime lets 4 MB come together, and keeps the memory.
func giveBack(every func(time.Duration, func())) { every(giveBackEvery, debug.FreeOSMemory) }

// giveBackEvery is how often it does. The runtime collects garbage every two minutes at least.
const giveBackEvery = time.Minute

// pids returns the process IDs of all workers.
func (m *Master) pids() map[int]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[int]bool{}
	for w := range maps.Values(m.members) {
		all[w.process.PID] = true
	}
	return all
}
