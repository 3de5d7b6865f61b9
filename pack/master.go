package pack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
	"github.com/gopherpack/gopherpack/sigctl"
)

// generation is that of a master that was not upgraded.
const generation = 1

// masterState is the state of a running master.
type masterState struct {
	config  Config
	log     *slog.Logger
	plan    plan
	sockets sockets
	group   *procgroup.Group
	begun   time.Time
	attr    *syscall.SysProcAttr // of the workers

	mu       sync.Mutex // group's and the workers' goroutines share what follows
	links    map[*procgroup.Process]*link
	ready    map[int]bool // workers that are
	settled  bool         // all of them were once
	stopping bool
	closed   map[*procgroup.Process]bool // when stopping: have closed their sockets
	cut      int
}

func (p *Pack) runMaster(ctx context.Context) error {
	m := &masterState{
		config: p.config,
		log:    p.config.Logger,
		begun:  time.Now(),
		links:  map[*procgroup.Process]*link{},
		ready:  map[int]bool{},
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

// run supervises the workers until ctx ends or a signal comes.
func (m *masterState) run(ctx context.Context) error {
	m.group = &procgroup.Group{
		Size:         m.plan.workers(),
		Command:      m.command,
		Start:        m.start,
		Serve:        m.serve,
		Event:        m.event,
		Terminate:    m.terminate,
		ReadyTimeout: m.config.ReadyTimeout,
		StopTimeout:  m.config.ShutdownTimeout,
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	endSignals, forced := m.handleSignals(stop)
	defer endSignals()

	if err := onStart(ctx, m.config.OnStart); err != nil {
		return err
	}
	// The group is told to stop after everything is ready for that.
	groupCtx, stopGroup := context.WithCancel(context.WithoutCancel(ctx))
	defer stopGroup()
	defer context.AfterFunc(ctx, func() {
		m.beginStop(context.Cause(ctx))
		stopGroup()
	})()
	err := m.group.Run(groupCtx)
	endSignals()
	if start, ok := errors.AsType[*procgroup.StartError](err); ok {
		if told, ok := errors.AsType[*workerError](start.Err); ok {
			return told
		}
		return fmt.Errorf("the first worker failed before it was ready: %w", start.Err)
	}
	if err != nil {
		return err
	}
	if forced.Load() {
		return errors.New("stopped by force, by a second signal")
	}
	m.report()
	return nil
}

// handleSignals has signals stop the pack, until end is called. forced tells whether there was a second one. A
// third has the effect that it has by default, in case that even killing the workers does not end the stop.
func (m *masterState) handleSignals(stop context.CancelCauseFunc) (end func(), forced *atomic.Bool) {
	forced = new(atomic.Bool)
	ctx, cancel := context.WithCancel(context.Background())
	mux := sigctl.Mux{Actions: []sigctl.Action{{
		Name:    "stop",
		Signals: stopSignals,
		Do:      func(_ context.Context, s os.Signal) { stop(&sigctl.Error{Signal: s}) },
		Again: func() {
			forced.Store(true)
			m.log.Warn("second signal, killing the workers")
			m.group.Kill()
			cancel()
		},
	}}}
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
func (m *masterState) serve(p *procgroup.Process, conn *net.UnixConn) {
	l := &link{conn: conn}
	m.mu.Lock()
	m.links[p] = l
	stopping := m.stopping
	m.mu.Unlock()
	if stopping {
		m.terminate(p) // it was asked before there was a link
	}
	for {
		msg, files, err := l.receive()
		if err != nil {
			break
		}
		closeAll(files) // workers send none
		switch msg.Type {
		case msgHello:
			if msg.Version != protocolVersion {
				p.Fail(fmt.Errorf("the worker speaks version %d of the protocol, this master %d", msg.Version, protocolVersion))
				p.Signal(os.Kill)
			}
		case msgListen:
			m.answer(p, l, msg.Endpoint)
		case msgReady:
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
			m.ended(p, msg.Cut)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, p)
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

// terminate asks a worker to drain. A worker that does not read is not waited for.
func (m *masterState) terminate(p *procgroup.Process) error {
	m.mu.Lock()
	l, final := m.links[p], m.stopping
	m.mu.Unlock()
	if l == nil {
		return nil // serve will ask
	}
	return l.send(message{Type: msgDrain, Final: final})
}

// event follows the group. It is called from the group's goroutine.
func (m *masterState) event(e procgroup.Event) {
	log := m.log.With("worker", e.ID, "pid", e.PID)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Kind {
	case procgroup.Started:
		log.Debug("worker started", "attempt", e.Attempt)
	case procgroup.Ready:
		m.ready[e.ID] = true
		switch {
		case m.settled:
			log.Info("worker ready", "attempt", e.Attempt)
		case len(m.ready) == m.plan.workers():
			m.settled = true
			m.announce()
		}
	case procgroup.Killed:
		log.Warn("killing worker", "reason", e.Err)
	case procgroup.Failed:
		delete(m.ready, e.ID)
		if e.Retry < 0 {
			return // Run says why, or everything is being stopped
		}
		log.Error("worker failed", "error", e.Err, "uptime", e.Uptime.Round(time.Millisecond), "failures", e.Failures,
			"next", e.Retry.Round(time.Millisecond))
	case procgroup.Stopped:
		if e.Err != nil {
			log.Warn("worker stopped", "error", e.Err, "uptime", e.Uptime.Round(time.Millisecond))
		} else {
			log.Debug("worker stopped", "uptime", e.Uptime.Round(time.Millisecond))
		}
	}
}

// announce logs that the pack is up.
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

// beginStop prepares a graceful stop: what workers are told from now on is that nobody takes over the sockets.
func (m *masterState) beginStop(why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	m.begun = time.Now()
	m.log.Info("stopping", "reason", why, "workers", len(m.links), "timeout", m.config.ShutdownTimeout)
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

// ended notes what a worker had to cut.
func (m *masterState) ended(p *procgroup.Process, cut int) {
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
