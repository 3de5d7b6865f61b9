package master

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
	"github.com/gopherpack/gopherpack/internal/proc"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/procgroup"
	"github.com/gopherpack/gopherpack/upgrade"
)

// group is the processes of a generation.
type group struct {
	*procgroup.Group
	work *serial // what is asked of it: its goroutine may be starting a process, which can take long
	stop context.CancelFunc
}

// onGroup has a group asked for something.
func (m *Master) onGroup(generation int, do func(*group)) {
	if g := m.groups[generation]; g != nil {
		g.work.do(func() { do(g) })
	}
}

// launch runs the group of a generation.
func (m *Master) launch(e launch) {
	ctx, stop := context.WithCancel(context.Background())
	g := &group{work: newSerial(), stop: stop}
	spec := func(id int) WorkerSpec {
		image := m.imageOf(e.generation, e.spec.image)
		return WorkerSpec{ID: id, Generation: e.generation, Plan: e.spec.plan, User: e.spec.user, Image: image.Path()}
	}
	command := func(id int) (*exec.Cmd, error) {
		s := spec(id)
		s.Crash = m.crashes.expect(seat{e.generation, id})
		return m.Command(s)
	}
	refOf := func(id, attempt int) roster.Ref {
		return roster.Ref{Generation: e.generation, ID: id, Attempt: attempt}
	}
	g.Group = &procgroup.Group{
		Size:    e.spec.plan.Workers(),
		Command: command,
		Output:  m.Output.Take, // also without the option, if a predecessor had it
		Start:   func(id int, cmd *exec.Cmd) error { return m.Start(spec(id), cmd) },
		Serve:   func(p *procgroup.Process, c *net.UnixConn) { m.serve(g, refOf(p.ID, p.Attempt), p, c) },
		Event: func(ev procgroup.Event) {
			ref := refOf(ev.ID, ev.Attempt)
			crashed := ""
			if ev.Kind == procgroup.Failed || ev.Kind == procgroup.Stopped {
				crashed = m.crashes.ended(seat{e.generation, ev.ID}, ev.Err)
				m.forget(ref)
			}
			m.post(process{
				ref: ref, kind: ev.Kind, pid: ev.PID, err: ev.Err, crash: crashed,
				failures: ev.Failures, retry: ev.Retry, uptime: ev.Uptime,
			})
		},
		Terminate: func(p *procgroup.Process) error {
			ref := refOf(p.ID, p.Attempt)
			m.know(g, ref, p)
			m.post(terminate{ref})
			return nil
		},
		ReadyTimeout: m.ReadyTimeout,
		StopTimeout:  m.ShutdownTimeout,
		BackoffAll:   time.Second, // nobody serves
		StartNone:    e.held,
	}
	if e.adopt {
		g.Adopt = m.adopted[e.generation]
		delete(m.adopted, e.generation)
	}
	m.groups[e.generation] = g
	go func() {
		defer stop()
		err := g.Run(ctx)
		m.Output.Flush()
		if errors.Is(err, procgroup.ErrReleased) {
			return // somebody else runs it now
		}
		g.work.stop()
		m.post(groupEnded{e.generation, err})
	}()
}

// imageOf returns what the workers of a generation run: what this process does, or what it is to become, or what was
// before it, until it is certain that it does not go back to that.
func (m *Master) imageOf(generation, change int) *upgrade.Image {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.images[change] != nil:
		return m.images[change]
	case m.foreign[generation]:
		return m.estate.Previous()
	}
	return m.self
}

// spoken is a worker process that is spoken to.
type spoken struct {
	ref     roster.Ref
	group   *group
	process *procgroup.Process
	outbox  *outbox
}

// know returns what is known of a worker process, which is remembered until it is gone.
func (m *Master) know(g *group, ref roster.Ref, p *procgroup.Process) *spoken {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.members[ref]
	if w == nil || w.group != g {
		w = &spoken{ref: ref, group: g, process: p, outbox: newOutbox(m, ref)}
		m.members[ref] = w
	}
	return w
}

// forget forgets a worker process that has ended.
func (m *Master) forget(ref roster.Ref) {
	m.tallies.forget(ref)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.members, ref)
}

func (m *Master) spokenTo(ref roster.Ref) *spoken {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.members[ref]
}

// serve is the master's side of one worker's control socket. It returns when that ends, or between two messages when
// the process is released. A worker waits until what it said has been dealt with before its next message is read, so
// however much it says, it holds up nobody else.
func (m *Master) serve(g *group, ref roster.Ref, p *procgroup.Process, socket *net.UnixConn) {
	w := m.know(g, ref, p)
	conn := wire.NewConn(socket)
	w.outbox.open(conn)
	m.post(connected{ref: ref, pid: p.PID, started: p.Started, share: 1 - rand.Float64()/10})
	for !p.Released() {
		r, err := conn.Receive()
		if err == nil {
			if err = m.receive(ref, &r); err == nil {
				continue
			}
		}
		if p.Released() || wire.Interrupted(err) {
			break
		}
		if !wire.Gone(err) {
			m.postAndWait(broken{ref, err})
			fdmsg.Discard(socket)
		}
		break
	}
	if p.Released() {
		return
	}
	m.postAndWait(gone{ref})
	g.work.flush(m.ended) // what it said before its end comes before its end
	m.mu.Lock()
	if m.members[ref] == w {
		delete(m.members, ref)
	}
	m.mu.Unlock()
	w.outbox.stop()
}

// receive has the core deal with a message, and waits until it has.
func (m *Master) receive(ref roster.Ref, r *wire.Received) error {
	if err := r.CheckFromWorker(r.Size, len(r.Files), r.Lost); err != nil {
		r.Close()
		return err
	}
	e := message{ref: ref, msg: r.Message, lost: r.Lost}
	if len(r.Files) == 0 {
		m.postAndWait(e)
		return nil
	}
	if err := checkConn(r.Files[0]); err != nil {
		r.Close()
		return err
	}
	p := &handedOver{file: r.Files[0], done: make(chan struct{})}
	e.parcel = p
	m.post(e)
	select {
	case <-p.done:
	case <-m.ended:
		p.lose()
	}
	return nil
}

// onWorker does something about a worker process.
func (m *Master) onWorker(e effect) {
	ask := func(ref roster.Ref, do func(*procgroup.Process)) {
		if w := m.spokenTo(ref); w != nil {
			w.group.work.do(func() { do(w.process) })
		}
	}
	switch e := e.(type) {
	case restart:
		ask(e.ref, (*procgroup.Process).Restart)
	case proven:
		ask(e.ref, (*procgroup.Process).Ready)
	case kill:
		ask(e.ref, func(p *procgroup.Process) { p.Kill(e.why) })
	case fail:
		ask(e.ref, func(p *procgroup.Process) { p.Fail(e.why) })
	case killWithStacks:
		ask(e.ref, func(p *procgroup.Process) {
			p.Fail(e.why)
			for _, s := range m.Signals.Stacks {
				if p.Signal(s) != nil {
					return // it has ended
				}
			}
			time.AfterFunc(stackTime, func() { p.Kill(e.why) })
		})
	case send:
		if w := m.spokenTo(e.ref); w != nil {
			w.outbox.put(letter{msg: e.msg, socket: e.socket, board: e.board, tally: e.tally})
		}
	case forward:
		msg := wire.Message{Type: wire.Handover, Endpoint: &e.writes}
		l := letter{msg: msg, from: e.from, endpoint: e.endpoint, conn: e.parcel.(*handedOver)}
		if w := m.spokenTo(e.to); w == nil || !w.outbox.put(l) {
			m.post(undelivered{e.from, e.endpoint, e.parcel})
		}
	}
}

// stackTime is how long a worker may take to write its stacks until it is killed.
const stackTime = 3 * time.Second

// release has nobody listen to workers, so that another program can: groups let go of their processes, and what workers
// are told has been told before.
func (m *Master) release() {
	m.flushOutboxes(true)
	var all sync.WaitGroup
	var mu sync.Mutex
	for number, g := range m.groups {
		all.Go(func() {
			if s := g.Release(); s != nil {
				mu.Lock()
				defer mu.Unlock()
				m.adopted[number] = s
			}
		})
	}
	all.Wait()
	m.Output.Flush()
	m.flushOutboxes(false)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.members {
		w.outbox.stop()
	}
	clear(m.members)
}

// flushOutboxes waits until all workers have been told what they are to be told. Those that read nothing, with so much
// waiting for them, are killed if that is wanted.
func (m *Master) flushOutboxes(orKill bool) {
	const patience = time.Second
	m.mu.Lock()
	var members []*spoken
	for _, w := range m.members {
		members = append(members, w)
	}
	m.mu.Unlock()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	late := false
	for _, w := range members {
		if !late {
			select {
			case <-w.outbox.empty():
				continue
			case <-deadline.C:
				late = true
			}
		}
		select {
		case <-w.outbox.empty():
		default:
			if orKill {
				w.process.Kill(errors.New("it does not read what the master tells it"))
			}
		}
	}
}

// reapOrphans reaps children that this process has inherited as process 1, or as a subreaper. It leaves the workers
// alone.
func (m *Master) reapOrphans(every func(time.Duration, func())) {
	if !proc.InheritsOrphans() {
		return
	}
	var reaper proc.Reaper
	every(time.Second, func() {
		var workers map[int]bool
		isWorker := func(pid int) bool {
			if workers == nil { // asked for after the ends that were seen
				workers = m.pids()
			}
			return workers[pid]
		}
		for _, p := range reaper.Reap(isWorker) {
			m.log.debug("reaped a process that nobody else waits for", "pid", p.PID, "status", p.Status)
		}
	})
}
