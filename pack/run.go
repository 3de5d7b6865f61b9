package pack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/master"
	"github.com/gopherpack/gopherpack/pack/internal/output"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/runas"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/pack/internal/worker"
	"github.com/gopherpack/gopherpack/upgrade"
)

// Run runs the pack until ctx ends or a signal stops it, and returns nil after a graceful stop. It can be
// called once, and there can be one pack in a process, unless it runs in line. log.Fatal is for an error only:
// log.Fatal(p.Run(ctx)) would end a program that has done well with status 1 and print <nil>.
//
// In the master an error says why the pack could not start, or that it was forced to stop. In a worker Run
// returns nil when the worker has drained, and also when it could not serve: it has told the master why, whose
// log and Run say it once.
//
// While it runs, the process does not end when what reads its stdout or stderr is gone (SIGPIPE): those writes fail.
func (p *Pack) Run(ctx context.Context) error {
	if err := p.run(ctx); err != nil {
		p.service.Notify(systemd.Message{Status: "failed: " + err.Error(), Errno: systemd.Failed})
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

func (p *Pack) run(ctx context.Context) error {
	if !p.ran.CompareAndSwap(false, true) {
		return errors.New("Run was called before")
	}
	defer outliveReaders()()
	err := errors.Join(process.err, p.checkAll())
	question, estate := upgrade.Asked(), upgrade.Inherited()
	if process.kind != isWorker && question == nil {
		p.service = systemd.Take()
	}
	switch {
	case process.kind == isWorker:
		if err != nil {
			return err
		}
		if err := onlyPack(); err != nil {
			return err
		}
		return p.runWorker(ctx)
	case question != nil:
		p.answer(question, err)
	case estate != nil && p.config.Inline:
		err = errors.Join(err, errInline)
	case estate != nil:
	case err != nil:
		return err
	case process.kind == isInline || p.config.Inline:
		return p.runInline(ctx)
	}
	if only := onlyPack(); only != nil {
		return only
	}
	return p.runMaster(ctx, estate, err)
}

// hasRun is set when a pack with a master runs in this process.
var hasRun atomic.Bool

// onlyPack returns an error if another pack runs in this process, or has: its workers come to the first Run of the
// program, and have no other.
func onlyPack() error {
	if !hasRun.CompareAndSwap(false, true) {
		return errors.New("another pack runs in this process, or has: " +
			"one Run serves all addresses, by a Handle for each; tests serve in line, see Config.Inline")
	}
	return nil
}

var errInline = errors.New("it runs in line, without a master")

// checkAll reports what is wrong with the pack, and sets the defaults of the configuration.
func (p *Pack) checkAll() error {
	if err := p.checkHandles(); err != nil {
		return err
	}
	if process.kind == isMaster {
		if err := p.config.overrideByEnv(); err != nil {
			return err
		}
	}
	return p.config.check()
}

// prepare finds out what else can be wrong before anything is started, and returns what workers there are to be.
// workers, if not 0, is how many an operator has asked for since the start.
func (p *Pack) prepare(workers int) (pl plan.Plan, files sockets.Files, err error) {
	c := &p.config
	if pl, err = c.request().Here(workers); err != nil {
		return pl, files, err
	}
	if c.Files > 0 {
		if err := worker.RaiseFiles(c.Files); err != nil {
			return pl, files, err
		}
	}
	if _, err := runas.Attributes(c.User); err != nil {
		return pl, files, err
	}
	files.Mode = c.UnixMode
	if c.UnixOwner != "" {
		uid, gid, err := runas.Owner(c.UnixOwner)
		if err != nil {
			return pl, files, fmt.Errorf("UnixOwner: %w", err)
		}
		files.Owner = &sockets.Owner{UID: uid, GID: gid}
	}
	return pl, files, nil
}

// runMaster runs the pack. err is what is wrong with it already, for the predecessor if there is one.
func (p *Pack) runMaster(ctx context.Context, estate *upgrade.Estate, err error) error {
	var pl plan.Plan
	var files sockets.Files
	if err == nil {
		pl, files, err = p.prepare(0)
	}
	if err == nil {
		err = p.mayBeRun()
	}
	if err != nil && estate == nil {
		return err
	}
	m := master.New(p.masterConfig(pl, files))
	p.sealed.Store(true) // what is handled from here on, as in OnStart, nobody would serve
	p.master.Store(m)
	defer p.master.Store(nil)
	return m.Run(ctx, estate, err)
}

func (p *Pack) masterConfig(pl plan.Plan, files sockets.Files) master.Config {
	c := &p.config
	m := master.Config{
		Settings: master.Settings{
			ShutdownTimeout: c.ShutdownTimeout, ReadyTimeout: c.ReadyTimeout, MinReady: c.MinReady, HangTimeout: c.HangTimeout,
			BeatEvery: c.beatEvery(), Hang: master.HangPolicy(c.Hang), Recycle: master.Recycle(c.Recycle), Rolling: c.Rolling,
			NoRebalance:    c.NoRebalance,
			MaxGenerations: c.MaxGenerations, Placement: c.Placement, PID: os.Getpid(), Steered: c.Steering != nil,
			CanUpgrade: runtime.GOOS == "linux",
			Managed:    p.service.Socket != "", Watchdog: p.service.Watchdog,
			Kept: p.service.Store > 0, Passed: len(p.service.Passed) > 0,
			OnStart: c.OnStart != nil, OnUpgrade: c.OnUpgrade != nil, OnReopen: c.OnReopen != nil,
		},
		Log: c.Logger, Files: files, Plan: pl, Request: c.request(), User: c.User,
		Control: c.Control, OnStart: c.OnStart, OnUpgrade: c.OnUpgrade, OnReopen: c.OnReopen,
		Command: p.command,
		Start:   startWorker,
		Output:  &output.Writer{Form: outputForms[c.form], Stdout: os.Stdout, Stderr: os.Stderr},

		HangUpIgnored: hangUpIgnored,
		Service:       p.service,
		PreflightEnv:  append(systemd.Unset(), legacyPreflight()),
		Signals: master.Signals{
			Stop: stopSignals, Reload: reloadSignals, Upgrade: upgradeSignals, More: moreSignals, Fewer: fewerSignals,
			Reopen: reopenSignals, Stacks: stackSignals, Continue: continueSignals,
		},
	}
	m.Memory, _ = plan.MemoryLimit()
	if c.Steering != nil {
		m.Steering = c.Steering
	}
	for _, h := range p.handles {
		m.Endpoints = append(m.Endpoints, h.endpoint)
	}
	return m
}

// answer is Run in a preflight: it tells the running master what this program would be as its successor. It does not
// return, since what follows Run is for the end of a pack that has run.
func (p *Pack) answer(q *upgrade.Question, wrong error) {
	a, err := p.wouldBe(q.Bytes(), wrong)
	if err != nil {
		a = handoff.Answer{Error: err.Error()}
	}
	text, err := json.Marshal(a)
	if err != nil {
		os.Exit(1)
	}
	q.Answer(text)
}

// wouldBe returns what workers this program would have.
func (p *Pack) wouldBe(question []byte, wrong error) (a handoff.Answer, err error) {
	var q handoff.Question
	switch err := json.Unmarshal(question, &q); {
	case err != nil:
		return a, fmt.Errorf("the question %.100q: %w", question, err)
	case wrong != nil:
		return a, wrong
	case q.Master != 0 && q.Master != os.Getppid():
		return a, errNotExeced
	case process.kind == isInline || p.config.Inline:
		return a, errInline
	case q.Version != handoff.Version:
		return a, fmt.Errorf("it takes over a state of version %d, and this is version %d", handoff.Version, q.Version)
	case q.Protocol != wire.Version:
		return a, fmt.Errorf("it speaks version %d of the protocol with workers, and these speak %d",
			wire.Version, q.Protocol)
	}
	pl, _, err := p.prepare(q.Workers)
	if err != nil {
		return a, err
	}
	if err := p.mayBeRun(); err != nil {
		return a, err
	}
	if s := p.config.Steering; s != nil {
		if err := s.Start(pl.Pinned()); err != nil {
			return a, err
		}
		if err := s.Close(); err != nil {
			return a, err
		}
	}
	return handoff.Answer{Shares: pl.Shares, Unpinned: pl.Unpinned, User: p.config.User}, nil
}

// runWorker serves as a worker.
func (p *Pack) runWorker(ctx context.Context) error {
	defer process.control.Close()
	return worker.Run(ctx, p.workerConfig(), process.control)
}

func (p *Pack) workerConfig() worker.Config {
	c := &p.config
	return worker.Config{
		ID: process.id, Log: c.Logger.With("worker", process.id),
		ShutdownTimeout: c.ShutdownTimeout, DrainDelay: c.drainDelay,
		HangTimeout: c.HangTimeout, Files: c.Files, SingleP: c.SingleP, AcceptAtOnce: c.AcceptAtOnce,
		Tickets: tickets, Probe: c.Probe,
		OnStart: c.OnWorkerStart, Prepare: p.watchFiles, Handles: p.seal, Wrap: c.WrapListener, OnShutdown: c.OnShutdown,
		BeginDrain: ownDrain.next(), OnReopen: c.OnReopen, OnOrphaned: process.restoreOutput,
		StopSignals: stopSignals, OtherSignals: otherSignals(),
	}
}

// seal returns what is served. From then on Handle comes too late.
func (p *Pack) seal() (all []worker.Handle) {
	p.sealed.Store(true)
	for _, h := range p.handles {
		all = append(all, worker.Handle{Endpoint: h.endpoint, Server: h.server, Packets: h.packets})
	}
	return all
}

// running returns the master of the pack that runs here.
func (p *Pack) running() (*master.Master, error) {
	switch m := p.master.Load(); {
	case m != nil:
		return m, nil
	case process.kind == isWorker:
		return nil, fmt.Errorf("this is a worker, and only the master can: call it there, or send the signal to process %d",
			os.Getppid())
	}
	return nil, errors.New("this process does not run a pack now, or in line")
}

// Reload does what the signal HUP does, and returns when the new workers have taken over, or why they have not.
// It can be called in the master while Run runs. While another reload, an upgrade or a change of the number of workers
// is in progress it is refused.
func (p *Pack) Reload(ctx context.Context) error {
	m, err := p.running()
	if err != nil {
		return fmt.Errorf("pack: reload: %w", err)
	}
	if err := m.Reload(ctx); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// SetWorkers changes the number of workers, as the signals TTIN (one more) and TTOU (one fewer) do, and returns when
// the new ones have taken over, or why they have not. All workers are replaced, as in a reload, since each gets another
// share of the CPUs; nothing is lost. The number holds until the pack stops, also after upgrades; 0 is again what
// Config says. It can be called in the master while Run runs. While another change is in progress it is refused; see
// Reload.
func (p *Pack) SetWorkers(ctx context.Context, n int) error {
	m, err := p.running()
	if err != nil {
		return fmt.Errorf("pack: scaling: %w", err)
	}
	if err := m.SetWorkers(ctx, n); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// Upgrade does what the signal USR2 does. If it succeeds it does not return: this program is replaced, in this process,
// by the executable that is on disk now, which goes on with the new workers. Otherwise it returns why, and the old
// workers go on. It can be called in the master while Run runs. While another change is in progress it is refused; see
// Reload.
//
// Before anything is replaced, the new executable is started once to show that it can be the master: it runs as far as
// Run, for which IsMaster is true, and exits there. So what only the master that serves may do, such as opening a port
// of its own, belongs into OnStart, not before Run. Linux only; elsewhere the error matches [errors.ErrUnsupported].
func (p *Pack) Upgrade(ctx context.Context) error {
	m, err := p.running()
	if err != nil {
		return fmt.Errorf("pack: upgrade: %w", err)
	}
	return fmt.Errorf("pack: %w", m.Upgrade(ctx))
}
