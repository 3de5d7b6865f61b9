package pack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
	"github.com/gopherpack/gopherpack/sigctl"
)

// masterState is the state of a running master.
type masterState struct {
	config  Config
	log     *slog.Logger
	plan    plan
	sockets sockets
	tickets ticketRing
	attr    *syscall.SysProcAttr // of the workers
	running sync.WaitGroup       // generations

	reloading sync.Mutex // held by the one reload

	mu          sync.Mutex // the goroutines of the groups and of the workers' links share what follows
	begun       time.Time  // the start, then the stop
	live        []*generation
	generations int         // how many there have been
	current     *generation // whose workers accept
	links       map[*procgroup.Process]*workerLink
	stopping    bool
	closed      map[*procgroup.Process]bool // when draining: have closed their sockets
	cut         int                         // connections, in the stop
}

func (p *Pack) runMaster(ctx context.Context) error {
	m := &masterState{
		config: p.config,
		log:    p.config.Logger,
		begun:  time.Now(),
		links:  map[*procgroup.Process]*workerLink{},
		closed: map[*procgroup.Process]bool{},
	}
	if err := m.prepare(); err != nil {
		return err
	}
	defer m.sockets.close()
	for _, h := range p.handles {
		if _, err := m.sockets.get(ctx, h.endpoint, 0); err != nil {
			return err
		}
	}
	p.master.Store(m)
	defer p.master.Store(nil)
	return m.run(ctx)
}

// prepare finds out what can be wrong before anything is started.
func (m *masterState) prepare() (err error) {
	if m.plan, err = m.config.makePlan(); err != nil {
		return err
	}
	m.sockets.workers = m.plan.workers()
	if m.config.Files > 0 {
		if err := raiseFiles(m.config.Files); err != nil {
			return err
		}
	}
	if m.config.User != "" {
		if m.attr, err = runAs(m.config.User); err != nil {
			return fmt.Errorf("user %q: %w", m.config.User, err)
		}
	}
	return nil
}

// run starts the first generation and supervises until ctx ends or a signal comes.
func (m *masterState) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	endSignals, forced := m.handleSignals(stop)
	defer endSignals()
	if err := onStart(ctx, m.config.OnStart); err != nil {
		return err
	}
	m.tickets.rotate()
	stopRotation := m.rotateTickets()
	defer stopRotation()
	first := m.launch(m.nextGeneration())
	var err error
	select {
	case err = <-first.failed:
	case <-ctx.Done():
	}
	m.beginStop(context.Cause(ctx))
	m.running.Wait()
	endSignals()
	switch {
	case err != nil:
		return startError(err)
	case forced.Load():
		return errors.New("stopped by force, by a second signal")
	}
	m.report()
	return nil
}

// handleSignals has signals stop and reload the pack, until end is called. forced tells whether there was a second
// one to stop. A third has the effect that it has by default, in case that even killing does not end the stop.
func (m *masterState) handleSignals(stop context.CancelCauseFunc) (end func(), forced *atomic.Bool) {
	forced = new(atomic.Bool)
	ctx, cancel := context.WithCancel(context.Background())
	mux := sigctl.Mux{Actions: []sigctl.Action{
		{
			Name:    "stop",
			Signals: stopSignals,
			Do:      func(_ context.Context, s os.Signal) { stop(&sigctl.Error{Signal: s}) },
			Again: func() {
				forced.Store(true)
				m.log.Warn("second signal, killing the workers")
				m.killAll()
				cancel()
			},
		},
	}}
	if len(reloadSignals) > 0 {
		mux.Actions = append(mux.Actions, sigctl.Action{
			Name:    "reload",
			Signals: reloadSignals,
			Do:      func(ctx context.Context, _ os.Signal) { m.reload(ctx) }, // which logs what comes of it
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		mux.Run(ctx)
	}()
	return func() { cancel(); <-done }, forced
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

// workerError is why a worker could not serve, in its own words.
type workerError struct{ text string }

func (e *workerError) Error() string { return e.text }

// serve is the master's side of one worker's control socket.
func (m *masterState) serve(g *generation, p *procgroup.Process, conn *net.UnixConn) {
	l := &workerLink{link: link{conn: conn}, generation: g}
	for {
		msg, files, err := l.receive()
		if err != nil {
			break
		}
		switch msg.Type {
		case msgConn:
			m.forward(p, msg.Endpoint, files)
		case msgHello:
			if msg.Version != protocolVersion {
				p.Fail(fmt.Errorf("the worker speaks version %d of the protocol, this master %d", msg.Version, protocolVersion))
				p.Signal(os.Kill)
				break
			}
			m.mu.Lock()
			m.links[p] = l
			m.mu.Unlock()
			l.send(m.tickets.message())
		case msgListen:
			m.answer(p, &l.link, msg.Endpoint)
		case msgReady:
			m.mu.Lock()
			l.ready = true
			m.mu.Unlock()
			p.Ready()
		case msgFailed:
			p.Fail(&workerError{msg.Error})
		case msgLast:
			answer := message{Type: msgQuiet}
			if err := m.sockets.quiesce(p.ID); err != nil {
				answer.Error = err.Error()
			}
			l.send(answer)
		case msgClosed:
			m.socketsClosed(p)
		case msgEnd:
			m.wasCut(p, msg.Cut)
		}
		closeAll(files)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, p)
	delete(m.closed, p)
	m.closeUnused()
}

// answer gives a worker the socket that it asks for.
func (m *masterState) answer(p *procgroup.Process, l *link, e *endpoint) {
	if e == nil {
		l.send(message{Type: msgRefused, Error: "the request names no endpoint"})
		return
	}
	socket, err := m.sockets.get(context.Background(), *e, p.ID)
	if err != nil {
		l.send(message{Type: msgRefused, Error: err.Error()})
		return
	}
	l.send(message{Type: msgSocket}, socket)
}

// terminate asks a worker to drain. One that has not come as far as Run has no sockets, and nothing to drain: the
// group kills it for the error.
func (m *masterState) terminate(p *procgroup.Process) error {
	m.mu.Lock()
	l, final := m.links[p], m.stopping
	handOver := l != nil && l.generation != m.current && !final
	m.mu.Unlock()
	if l == nil {
		return errors.New("it has not come as far as Run")
	}
	return l.send(message{Type: msgDrain, Final: final, HandOver: handOver})
}

// workerLink is the link to a worker.
type workerLink struct {
	link
	generation *generation
	ready      bool // guarded by masterState.mu
}

// forward passes on a connection that a draining worker hands over, to a worker that accepts: the one in its place
// if that can be.
func (m *masterState) forward(from *procgroup.Process, e *endpoint, files []*os.File) {
	if e == nil || len(files) != 1 {
		return
	}
	for _, l := range m.successors(from) {
		if l.sendConn(e, files[0]) == nil {
			return
		}
	}
	m.log.Warn("a connection was lost that a worker handed over: no worker could take it", "worker", from.ID, "pid", from.PID)
}

// successors returns the links to the workers that accept, with the one that has the number of from first.
func (m *masterState) successors(from *procgroup.Process) (links []*workerLink) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return nil
	}
	for p, l := range m.links {
		switch {
		case p == from || l.generation != m.current || !l.ready:
		case p.ID == from.ID:
			links = slices.Insert(links, 0, l)
		default:
			links = append(links, l)
		}
	}
	return links
}

// rotateTickets changes the keys for session tickets now and then, until stop is called.
func (m *masterState) rotateTickets() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(ticketKeyLife)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				m.tickets.rotate()
				m.broadcast(m.tickets.message())
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// broadcast sends a message to every worker. One that cannot be told will be noticed otherwise.
func (m *masterState) broadcast(msg message) {
	m.mu.Lock()
	links := slices.Collect(maps.Values(m.links))
	m.mu.Unlock()
	for _, l := range links {
		l.send(msg)
	}
}

// announce logs that the pack is up. It is called with mu locked.
func (m *masterState) announce() {
	args := []any{"pid", os.Getpid(), "workers", m.plan.workers()}
	if m.plan.unpinned == "" {
		args = append(args, "cpus", m.plan.all(), "placement", m.config.Placement)
	} else {
		args = append(args, "unpinned", m.plan.unpinned)
	}
	args = append(args, "listening", m.sockets.addresses(), "took", time.Since(m.begun).Round(time.Millisecond))
	m.log.Info("pack is up", args...)
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

// socketsClosed notes that a draining worker has closed its sockets.
func (m *masterState) socketsClosed(p *procgroup.Process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed[p] = true
	m.closeUnused()
}

// closeUnused closes the master's sockets when a stop has begun and no worker has any left, so that clients are
// refused instead of waiting. It is called with mu locked.
func (m *masterState) closeUnused() {
	if !m.stopping {
		return
	}
	for p := range m.links {
		if !m.closed[p] {
			return
		}
	}
	m.sockets.close()
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
