package pack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gopherpack/gopherpack/internal/executable"
	"github.com/gopherpack/gopherpack/internal/inplace"
	"github.com/gopherpack/gopherpack/procgroup"
	"github.com/gopherpack/gopherpack/sigctl"
)

// upgrade replaces the workers by those of the executable that is on disk now, and then this program by it, in this
// process. If it succeeds it does not return.
func (m *masterState) upgrade(ctx context.Context) error {
	begun := time.Now()
	return m.change(ctx, "upgrade", func(ctx context.Context, old *generation) error {
		if !canSucceed {
			return fmt.Errorf("this system cannot upgrade a pack in place: %w", errors.ErrUnsupported)
		}
		image, err := executable.Open(m.path)
		if err != nil {
			return err
		}
		defer image.Close()
		m.log.Info("upgrading", "executable", m.path)
		if hook := m.config.OnUpgrade; hook != nil {
			if err := hook(ctx); err != nil {
				return fmt.Errorf("OnUpgrade: %w", err)
			}
		}
		atStep(stepRehearse)
		spec, err := m.rehearse(ctx, image)
		if err != nil {
			return err
		}
		next, err := m.tryNext(ctx, old, spec, func(next *generation) {
			m.log.Info("new workers are starting", "generation", next.number, "workers", next.plan.workers())
		})
		if err != nil {
			return err
		}
		atStep(stepFreeze)
		err = m.become(ctx, image, next, begun) // returns only if that fails
		m.goBack(next, old, err)
		return err
	})
}

// become makes this process the master of the new executable, with next as the current generation. The old one has not
// been told to drain: the new master does that when it is at work. If it fails, everything is as it was.
func (m *masterState) become(ctx context.Context, image *executable.Image, next *generation, begun time.Time) error {
	m.uncoverAll()
	frozen := m.freeze()
	err := m.bequeathTo(ctx, image, frozen, next, begun)
	m.thaw(frozen)
	return err
}

// freeze has nobody read what workers say, nor notice their end, and returns the state of each generation.
func (m *masterState) freeze() map[*generation]*procgroup.State {
	m.mu.Lock()
	live := slices.Clone(m.live)
	m.mu.Unlock()
	var mu sync.Mutex
	frozen := map[*generation]*procgroup.State{}
	var releasing sync.WaitGroup
	for _, g := range live {
		releasing.Go(func() {
			if s := g.group.Release(); s != nil {
				mu.Lock()
				defer mu.Unlock()
				frozen[g] = s
			}
		})
	}
	releasing.Wait()
	return frozen
}

// thaw supervises frozen generations again.
func (m *masterState) thaw(frozen map[*generation]*procgroup.State) {
	m.mu.Lock()
	m.adopting = true
	for g := range frozen {
		g.links = map[int]linkState{}
		for p, l := range m.links {
			if l.generation == g {
				g.links[p.PID] = l.state
				delete(m.links, p)
				m.leaveSteering(l)
			}
		}
		m.forget(g)
	}
	m.mu.Unlock()
	for _, g := range sortedByNumber(maps.Keys(frozen)) {
		m.supervise(g, frozen[g])
	}
	m.awaitLinks(slices.Collect(maps.Keys(frozen)))
	m.adopted()
	if m.signals.forced.Load() {
		m.killAll()
	}
}

// bequeathTo writes down the state and becomes the new executable.
func (m *masterState) bequeathTo(ctx context.Context, image *executable.Image, frozen map[*generation]*procgroup.State,
	next *generation, begun time.Time,
) error {
	m.mu.Lock()
	l, lifelines, sockets, err := m.bequeath(frozen, next, begun)
	m.mu.Unlock()
	defer closeAll(sockets) // they are copies; whoever supervises the workers closes the lifelines
	if err != nil {
		return err
	}
	memory, err := inMemory("succession", l)
	if err != nil {
		return err
	}
	defer memory.Close()
	self, err := executable.Running()
	if err != nil {
		return err
	}
	defer self.Close()
	atStep(stepExec)
	late, err := m.signals.endForExec()
	defer m.signals.begin(m)
	if late != nil {
		m.stop(&sigctl.Error{Signal: late})
	}
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return execSuccessor(image, slices.Concat(lifelines, sockets, []*os.File{memory, self.File()}), func(fd func(*os.File) int) string {
		return fmt.Sprintf("version=%d pid=%d fd=%d previous=%d", successionVersion, os.Getpid(), fd(memory), fd(self.File()))
	})
}

// execSuccessor becomes another program, which learns from the environment what it inherits.
func execSuccessor(image *executable.Image, files []*os.File, value func(fd func(*os.File) int) string) error {
	path, err := image.Path()
	if err != nil {
		return err
	}
	text := value(func(f *os.File) int {
		n, derr := inplace.Descriptor(f)
		err = errors.Join(err, derr)
		return n
	})
	if err != nil {
		return err
	}
	return becomeProgram(path, os.Args, append(os.Environ(), successionEnv+"="+text), files...)
}

// succeed is run in a program that has taken the place of its predecessor.
func (m *masterState) succeed(s *succession, err error) error {
	defer s.close()
	m.path, m.begun, m.generations = s.Path, s.Begun, s.Count
	m.changing.Lock() // this is the rest of the upgrade
	m.signals.begin(m)
	defer m.signals.end()
	atStep(stepSucceed)
	m.tickets.inherit(s.Tickets, s.TicketsMade)
	if err = cmp.Or(s.err, err); err == nil {
		_, err = m.prepare() // the workers are there already, as the rehearsal wanted them
	}
	if err == nil {
		err = onStart(m.ctx, m.config.OnStart)
	}
	taken, terr := s.takeSockets()
	defer m.sockets.close()
	m.sockets.take(taken)
	if err = errors.Join(err, terr); err != nil {
		return m.giveBack(s, err)
	}
	generations, err := s.takeGenerations()
	if err != nil {
		return m.giveBack(s, err)
	}
	return m.takeOver(s, generations)
}

// takeOver goes on with the workers of the predecessor.
func (m *masterState) takeOver(s *succession, generations map[*generation]*procgroup.State) error {
	all := sortedByNumber(maps.Keys(generations))
	i := slices.IndexFunc(all, func(g *generation) bool { return g.number == s.currentNumber() })
	current, others := all[i], slices.Delete(slices.Clone(all), i, i+1)
	m.mu.Lock()
	m.current = current
	m.adopting = true
	m.mu.Unlock()
	for _, g := range all {
		m.supervise(g, generations[g])
	}
	m.awaitLinks(all)
	if err := m.startSteering(current.plan); err != nil {
		m.steeringFails(err)
	}
	defer m.stopSteering()
	m.adopted()
	atStep(stepAdopted)
	if i := slices.IndexFunc(others, func(g *generation) bool { return g.number == s.Current }); i >= 0 && m.config.Rolling {
		m.rollBack(others[i], current, errors.New(s.returned))
	}
	m.replace(current, others...)
	s.close()
	if len(m.sockets.surplus(current.plan.workers())) == 0 {
		m.changing.Unlock()
	} else {
		m.running.Go(func() {
			defer m.changing.Unlock()
			m.giveUpSockets(current)
		})
	}
	if s.returned != "" {
		m.log.Error("upgrade failed, the old executable and workers go on", "error", s.returned, "generation", current.number)
	} else {
		m.log.Info("upgraded", "pid", os.Getpid(), "generation", current.number, "workers", current.plan.workers(),
			"listening", m.sockets.addresses(), "took", time.Since(s.Begun).Round(time.Millisecond))
	}
	return m.supervisePack(current)
}

// awaitLinks waits until every adopted worker that has said hello can be spoken to, or is gone.
func (m *masterState) awaitLinks(adopted []*generation) {
	const patience = 5 * time.Second // nothing holds it up but a busy machine
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if !slices.ContainsFunc(adopted, m.lacksLinks) {
			return
		}
	}
}

// adopted ends the time in which links may be missing.
func (m *masterState) adopted() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.adopting = false
	m.serving()
}

func (m *masterState) lacksLinks(g *generation) bool {
	members := g.group.Members()
	m.mu.Lock()
	defer m.mu.Unlock()
	if members == nil { // its Run has not begun, or has ended
		return slices.Contains(m.live, g)
	}
	linked := map[int]bool{}
	for p := range m.links {
		linked[p.PID] = true
	}
	return slices.ContainsFunc(members, func(member procgroup.Member) bool {
		_, known := g.links[member.PID]
		return known && !linked[member.PID]
	})
}

func sortedByNumber(all iter.Seq[*generation]) []*generation {
	return slices.SortedFunc(all, func(a, b *generation) int { return cmp.Compare(a.number, b.number) })
}

// giveBack becomes the predecessor's program again, which has the same legacy and goes on with its own workers. why is
// the reason, and what is returned if that fails, too.
func (m *masterState) giveBack(s *succession, why error) error {
	if s.returned != "" {
		return fmt.Errorf("the old executable cannot go on after a failed upgrade (%s): %w", s.returned, why)
	}
	if _, err := m.signals.endForExec(); err != nil {
		return fmt.Errorf("%w; and the previous executable could not be gone back to: %w", why, err)
	}
	files := append(slices.Collect(maps.Values(s.files)), s.memory, s.previous.File())
	err := execSuccessor(s.previous, files, func(func(*os.File) int) string {
		return s.source + returnedWord + strings.ReplaceAll(why.Error(), "\x00", "")
	})
	return fmt.Errorf("%w; and the previous executable could not be gone back to: %w", why, err)
}

// step is a point in a reload or an upgrade at which tests make something go wrong.
type step string

const (
	stepRehearse step = "rehearse" // the new executable is about to be started as a master
	stepLaunched step = "launched" // the new workers are starting
	stepReady    step = "ready"    // they are ready, the canary's time begins
	stepFreeze   step = "freeze"   // they have proven themselves; nobody will listen to workers
	stepExec     step = "exec"     // nobody does; the legacy is written
	stepSucceed  step = "succeed"  // in the new program, which has not taken anything yet
	stepAdopted  step = "adopted"  // it has adopted the workers
	stepReplaced step = "replaced" // the old ones have been told to drain
)

// Tests set these.
var (
	atStep        = func(step) {}
	becomeProgram = inplace.Exec
)

// inMemory writes v as JSON to a file that has no name in the file system.
func inMemory(name string, v any) (*os.File, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	f, err := memoryFile(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(text); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
