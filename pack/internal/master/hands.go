package master

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/gopherpack/gopherpack/internal/proc"
	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/upgrade"
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
	case launch:
		m.launch(e)
	case startMember:
		m.onGroup(e.generation, func(g *group) { g.StartMember(e.id) })
	case stopMember:
		m.onGroup(e.generation, func(g *group) { g.StopMember(e.id) })
	case stopGeneration:
		if g := m.groups[e.generation]; g != nil {
			g.stop()
		}
	case killGeneration:
		m.onGroup(e.generation, func(g *group) { g.Kill() })
	case restart, proven, kill, fail, killWithStacks, send, forward:
		m.onWorker(e)
	case drop:
		e.parcel.(*handedOver).lose()
	case openSockets, growSockets, directSockets, shrinkSockets, keepSockets, quiesceSockets, quiesceEndpoint, closeSockets:
		m.onSockets(e)
	case startSteering, attachSteering, steer, joinSteering, leaveSteering:
		m.steering.perform(e)
	case runHook:
		go m.hook(e.name)
	case endHooks:
		m.endHooks()
	case examine:
		go func() { m.post(examined{e.ref, proc.State(e.pid), proc.ReadTimes(e.pid), e.first}) }()
	case sample:
		go m.sample(e.pids)
	case makePlan:
		go func() {
			p, err := m.Request.Here(e.workers)
			m.post(planned{p, err})
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
func (m *Master) hook(name hook) {
	err := func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
		}()
		switch name {
		case onStart:
			err = m.OnStart(m.hooks)
		case onUpgrade:
			err = m.OnUpgrade(m.hooks)
		case onReopen:
			m.OnReopen()
		}
		return err
	}()
	m.post(hooked{name, err})
}

// onSockets does something with sockets. Opening may take long, since names are looked up; all else is done in order.
func (m *Master) onSockets(e effect) {
	if open, ok := e.(openSockets); ok {
		go func() {
			info, err := m.sockets.Open(m.hooks, open.endpoint, open.workers)
			info.Endpoint = open.endpoint
			m.post(opened{info, err})
		}()
		return
	}
	m.work.do(func() {
		switch e := e.(type) {
		case growSockets:
			m.post(grown{m.sockets.Grow(m.hooks, e.workers, e.steered)})
		case directSockets:
			m.post(directed{m.sockets.Direct(e.workers, e.steered)})
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
			m.post(quiesced{e.ref, errors.Join(errs...)})
		case quiesceEndpoint:
			m.sockets.QuiesceEndpoint(e.endpoint) // what cannot be kept out is served until the socket is closed
		case closeSockets:
			m.sockets.Close()
		}
	})
}

// onUpgrade does a step of an upgrade.
func (m *Master) onUpgrade(e effect) {
	switch e := e.(type) {
	case openImage:
		go func() {
			image, err := upgrade.OpenImage(m.path)
			m.mu.Lock()
			m.image = image
			m.mu.Unlock()
			m.post(imageOpened{m.path, err})
		}()
	case dropImage:
		m.mu.Lock()
		image := m.image
		m.image = nil
		m.mu.Unlock()
		if image != nil {
			image.Close()
		}
	case preflight:
		go func() {
			s, err := m.preflight(e.question)
			m.post(preflown{s, err})
		}()
	case release:
		go func() {
			m.release()
			m.post(released{})
		}()
	case execute:
		go func() {
			err := m.become(e.state, e.back)
			failed := execFailed{err: err}
			if late, ok := errors.AsType[upgrade.LateSignal](err); ok {
				failed.late = late
			}
			m.post(failed)
		}()
	case settled:
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.estate != nil {
			m.estate.Close()
			m.estate, m.foreign = nil, nil
		}
	}
}

// theImage returns what this program is to become.
func (m *Master) theImage() *upgrade.Image {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.image
}

// preflight has the new executable show that it can be the master, and returns what workers it wants.
func (m *Master) preflight(q handoff.Question) (spec, error) {
	image := m.theImage()
	if image == nil {
		return spec{}, errors.New("it was given up")
	}
	ctx, cancel := context.WithTimeoutCause(m.hooks, m.ReadyTimeout, fmt.Errorf("no answer within %v", m.ReadyTimeout))
	defer cancel()
	question, err := json.Marshal(q)
	if err != nil {
		return spec{}, err
	}
	text, err := upgrade.Preflight(ctx, image, question, m.PreflightEnv...)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if cause := errors.Unwrap(err); cause != nil { // which executable it was is known
			err = cause
		}
		return spec{}, fmt.Errorf("the new executable does not do as a master: %w", err)
	}
	var a handoff.Answer
	if err := json.Unmarshal(text, &a); err != nil {
		return spec{}, fmt.Errorf("the answer of the new executable, %.100q: %w", text, err)
	}
	if a.Error != "" {
		return spec{}, fmt.Errorf("the new executable will not be the master: %s", a.Error)
	}
	if err := plan.Check(len(a.Shares)); err != nil {
		return spec{}, fmt.Errorf("the new executable wants %w", err)
	}
	return spec{plan: plan.Plan{Shares: a.Shares, Unpinned: a.Unpinned}, user: a.User, image: true}, nil
}

// become becomes the new executable, or the one before. It returns only if that fails.
func (m *Master) become(s *handoff.State, back bool) error {
	image := m.theImage()
	if back {
		image = m.estate.Previous()
	}
	if image == nil {
		return errors.New("the executable is not open any more")
	}
	var files, own []*os.File // which the adopted groups close, and which are copies
	defer func() { closeFiles(own) }()
	s.Image = m.path
	s.Generations = slices.DeleteFunc(s.Generations, func(g handoff.Generation) bool { return m.adopted[g.Number] == nil }) // just ended
	for i := range s.Generations {
		g := &s.Generations[i]
		g.Group, g.Controls = m.adopted[g.Number], map[int]int{}
		for id, member := range g.Group.Members {
			if member.Lifeline != nil {
				g.Controls[id] = len(files)
				files = append(files, member.Lifeline)
			}
		}
	}
	exported := len(files)
	states, files, err := m.sockets.Export(files, m.steering.export)
	if err != nil {
		return err
	}
	own, s.Sockets = files[exported:], states
	text, err := s.Encode()
	if err != nil {
		return err
	}
	m.log.flush()
	defer m.signals.again(m)
	return Become(image, text, files, m.signals.during(m))
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
	waiting := false
	every(lookAtQueues, func() {
		queued := m.sockets.Queued()
		if len(queued) > 0 || waiting {
			m.post(queues{queued})
		}
		waiting = len(queued) > 0
	})
	m.followCPUs(every)
	m.reapOrphans(every)
}

// lookAtQueues is how often queues are looked at.
const lookAtQueues = 200 * time.Millisecond

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
