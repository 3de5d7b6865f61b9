package pack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/internal/executable"
	"github.com/gopherpack/gopherpack/internal/inplace"
	"github.com/gopherpack/gopherpack/procgroup"
	"github.com/gopherpack/gopherpack/sigctl"
)

// masterState is the state of a running master.
type masterState struct {
	config  Config
	log     *slog.Logger
	path    string // where the next version of the executable will be
	sockets sockets
	tickets ticketRing
	signals signalHandling

	ctx     context.Context         // ends when the pack is to stop
	stop    context.CancelCauseFunc // ends it
	running sync.WaitGroup          // generations, and the change

	scaled   atomic.Int64  // how many workers there are to be, if that was changed; else 0
	changing sync.Mutex    // held by the one change
	happened chan struct{} // has something in it when the change should look again at what it awaits

	mu           sync.Mutex // the goroutines of the groups and of the workers' links share what follows
	begun        time.Time  // the start, then the stop
	live         []*generation
	generations  int         // how many there have been
	current      *generation // whose workers accept
	links        map[*procgroup.Process]*workerLink
	steered      map[int]steered     // by worker, what the steering was told; nil if nothing is steered
	steeredAmong int                 // workers
	hung         map[int]bool        // workers that the steering has found to hang
	watched      time.Duration       // for how long workers have been watched
	together     together            // what all workers were at the last look
	adopting     bool                // some links to workers are not there yet
	covers       map[int]*workerLink // who serves the sockets of workers that are not there, or hang
	stopping     bool
	cut          int // connections, in the stop
}

// runMaster runs the pack. err is what is wrong with it already, for the predecessor if there is one.
func (p *Pack) runMaster(ctx context.Context, r role, err error) error {
	m := &masterState{
		config:   p.config,
		log:      p.config.Logger,
		happened: make(chan struct{}, 1),
		begun:    time.Now(),
		links:    map[*procgroup.Process]*workerLink{},
		hung:     map[int]bool{},
		covers:   map[int]*workerLink{},
	}
	m.sockets.files = p.config.socketFiles()
	p.master.Store(m)
	defer p.master.Store(nil)
	m.ctx, m.stop = context.WithCancelCause(ctx)
	defer m.stop(nil)
	if r.succession != nil {
		return m.succeed(r.succession, err)
	}
	path, err := executable.Path()
	if err != nil {
		return err
	}
	m.path = path
	return m.run(p.handles)
}

// run starts the first generation and supervises until ctx ends or a signal comes.
func (m *masterState) run(handles []handle) error {
	spec, err := m.prepare()
	if err != nil {
		return err
	}
	defer m.sockets.close()
	if err := m.startSteering(spec.plan); err != nil {
		return err
	}
	defer m.stopSteering()
	for _, h := range handles {
		if _, err := m.sockets.get(m.ctx, h.endpoint, 0, spec.plan.workers()); err != nil {
			return err
		}
	}
	m.signals.begin(m)
	defer m.signals.end()
	if err := onStart(m.ctx, m.config.OnStart); err != nil {
		return err
	}
	m.tickets.rotate(time.Now())
	first, err := m.launch(spec)
	if err != nil {
		return err
	}
	return m.supervisePack(first)
}

// prepare finds out what can be wrong before anything is started, and returns what workers there are to be.
func (m *masterState) prepare() (spec generationSpec, err error) {
	spec.user = m.config.User
	if spec.plan, err = m.config.makePlan(); err != nil {
		return spec, err
	}
	if m.config.Files > 0 {
		if err := raiseFiles(m.config.Files); err != nil {
			return spec, err
		}
	}
	if _, err = runAs(spec.user); err != nil {
		return spec, fmt.Errorf("user %q: %w", spec.user, err)
	}
	return spec, nil
}

// supervisePack returns when the pack has stopped. first is the generation whose start the pack depends on.
func (m *masterState) supervisePack(first *generation) error {
	for _, begin := range []func() (stop func()){m.rotateTickets, m.watchWorkers, m.recycleWorkers, m.followCPUs, m.reapOrphans} {
		defer begin()()
	}
	var err error
	select {
	case err = <-first.failed:
	case <-m.ctx.Done():
	}
	m.endHandOvers()
	m.beginStop(context.Cause(m.ctx))
	m.running.Wait()
	m.signals.end()
	switch {
	case err != nil:
		return startError(err)
	case m.signals.forced.Load():
		return errors.New("stopped by force, by a second signal")
	}
	m.report()
	return nil
}

// signalHandling has signals stop, reload and upgrade the pack.
type signalHandling struct {
	forced atomic.Bool // there was a second one to stop
	mux    *sigctl.Mux
	cancel context.CancelFunc
	done   chan struct{}

	restore func() // undoes what endForExec did; nil if that was nothing
}

// begin begins to heed signals. A third one to stop has the effect that it has by default, in case that even killing
// does not end the stop.
func (h *signalHandling) begin(m *masterState) {
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.done = cancel, make(chan struct{})
	actions := []sigctl.Action{{
		Name:    "stop",
		Signals: stopSignals,
		Do:      func(_ context.Context, s os.Signal) { m.stop(&sigctl.Error{Signal: s}) },
		Again: func() {
			h.forced.Store(true)
			m.log.Warn("second signal, killing the workers")
			go m.killAll()
			cancel()
		},
	}}
	// Changes run aside: a second one that is asked for meanwhile is refused, not queued. They log what comes of it.
	inBackground := func(change func(context.Context) error) func(context.Context, os.Signal) {
		return func(context.Context, os.Signal) { go change(context.Background()) }
	}
	if len(upgradeSignals) > 0 {
		actions = append(actions, sigctl.Action{Name: "upgrade", Signals: upgradeSignals, Do: inBackground(m.upgrade)})
	}
	if len(reloadSignals) > 0 {
		actions = append(actions, sigctl.Action{Name: "reload", Signals: reloadSignals, Do: inBackground(m.reload)})
	}
	if len(reopenSignals) > 0 {
		actions = append(actions, sigctl.Action{Name: "reopen", Signals: reopenSignals, Do: func(context.Context, os.Signal) { go m.reopen() }})
	}
	scale := func(name string, by int, signals []os.Signal) {
		if len(signals) > 0 {
			actions = append(actions, sigctl.Action{Name: name, Signals: signals, Do: inBackground(func(ctx context.Context) error {
				return m.scale(ctx, func(workers int) int { return workers + by })
			})})
		}
	}
	scale("more", +1, moreSignals)
	scale("fewer", -1, fewerSignals)
	h.mux = &sigctl.Mux{Actions: actions}
	h.mux.Register() // from here on no signal has its default effect
	if h.restore != nil {
		h.restore()
		h.restore = nil
	}
	go func() {
		defer close(h.done)
		h.mux.Run(ctx)
	}()
}

// end gives signals the effect that they have by default.
func (h *signalHandling) end() {
	h.cancel()
	<-h.done
}

// endForExec is end, but for signals that do not stop the pack: those are ignored, by this program and by the one that
// takes its place until it asks for them. It returns the signal to stop that has come too late, if there is one. One that
// comes later still ends the process.
func (h *signalHandling) endForExec() (late os.Signal, err error) {
	signal.Ignore(slices.Concat(reloadSignals, upgradeSignals, moreSignals, fewerSignals, reopenSignals)...)
	h.restore, err = inplace.DefaultSignals(stopSignals...)
	h.end()
	for _, s := range h.mux.Pending() {
		if slices.Contains(stopSignals, s) {
			late = s
		}
	}
	return late, err
}

// onStart calls the hook, if there is one. That it gives up because it was told to stop is no failure.
func onStart(ctx context.Context, hook func(context.Context) error) error {
	if hook == nil {
		return nil
	}
	if err := hook(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("OnStart: %w", err)
	}
	return nil
}

// rotateTickets changes the keys for session tickets now and then, until stop is called.
func (m *masterState) rotateTickets() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			timer := time.NewTimer(time.Until(m.tickets.due()))
			select {
			case <-timer.C:
				m.tickets.rotate(time.Now())
				m.broadcast(m.tickets.message())
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// announce logs that the pack is up. It is called with mu locked.
func (m *masterState) announce() {
	plan := m.current.plan
	args := []any{"pid", os.Getpid(), "workers", plan.workers()}
	if plan.unpinned == "" {
		args = append(args, "cpus", plan.all(), "placement", m.config.Placement)
	} else {
		args = append(args, "unpinned", plan.unpinned)
	}
	args = append(args, "listening", m.sockets.addresses(), "took", time.Since(m.begun).Round(time.Millisecond))
	if limit, ok := memoryLimit(); ok {
		args = append(args, "memory", fmt.Sprintf("%d MiB each", memoryShare(limit, plan.workers())>>20))
	}
	m.log.Info("pack is up", args...)
	warnOfMemory(m.log, plan.workers())
	if m.sockets.shared() {
		m.log.Warn("the workers share one listening socket: this system does not spread connections over several")
	}
}

// beginStop stops all generations. Workers are told that nobody takes over their sockets. why is nil if the pack
// never came up.
func (m *masterState) beginStop(why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	m.begun = time.Now()
	if why != nil {
		m.log.Info("stopping", "reason", why, "workers", len(m.links), "timeout", m.config.ShutdownTimeout)
	}
	for _, g := range m.live {
		g.stop()
	}
}

// killAll kills every worker.
func (m *masterState) killAll() {
	m.mu.Lock()
	live := slices.Clone(m.live)
	m.mu.Unlock()
	for _, g := range live {
		g.group.Kill()
	}
}

// wasCut notes what a worker had to cut.
func (m *masterState) wasCut(p *procgroup.Process, cut int) {
	m.mu.Lock()
	m.cut += cut
	m.mu.Unlock()
	if cut > 0 {
		m.log.Warn("worker cut connections that had not finished", "worker", p.ID, "pid", p.PID, "connections", cut)
	}
}

// report logs the end.
func (m *masterState) report() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log.Info("stopped", "took", time.Since(m.begun).Round(time.Millisecond), "cut", m.cut)
}
