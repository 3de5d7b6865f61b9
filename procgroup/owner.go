package procgroup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// phase is what a member is doing.
type phase int

const (
	unstarted phase = iota // member 0 is not ready yet, or StartNone is set
	waiting                // for the next attempt
	starting               // it has a process, which is not ready
	ready
	stopping // its process was asked to end
	over     // it has no process and gets no other
)

type member struct {
	phase    phase
	process  *Process
	detached bool // the process is nobody's now; see Release
	attempts int
	failures int // in a row
	reason   error
	again    bool      // when stopping: start anew
	killed   bool      // its process was killed, by us
	deadline time.Time // of the phase; zero if it has none
	started  time.Time
	readied  time.Time
}

// owner is the state of a running group. Only Run's goroutine touches it.
type owner struct {
	*Group
	members   []member
	stopping  bool
	proven    bool  // some process was ready once
	releasing bool  // processes are being let go of: nothing is started or killed any more
	err       error // why Run gave up
	serving   sync.WaitGroup
}

func (o *owner) run(ctx context.Context) error {
	defer close(o.ended)
	if o.Adopt != nil {
		o.takeOver(o.Adopt)
	} else if ctx.Err() != nil {
		return nil
	} else if !o.StartNone {
		o.start(0)
	}
	canceled := ctx.Done()
	for o.alive() {
		if o.releasing && o.letGo() {
			return ErrReleased
		}
		timer := time.NewTimer(time.Until(o.nextDeadline()))
		select {
		case f := <-o.inbox:
			f(o)
		case <-canceled:
			canceled = nil
			if !o.releasing { // whoever adopts them stops them
				o.stop()
			}
		case <-timer.C:
			o.expire()
		}
		timer.Stop()
	}
	return o.err
}

// alive reports whether there is anything left to wait for.
func (o *owner) alive() bool {
	return slices.ContainsFunc(o.members, func(m member) bool { return m.phase != over })
}

func (o *owner) nextDeadline() time.Time {
	next := time.Now().Add(time.Hour)
	if o.releasing {
		return next
	}
	for _, m := range o.members {
		if !m.deadline.IsZero() && m.deadline.Before(next) {
			next = m.deadline
		}
	}
	return next
}

// expire acts on the deadlines that have passed. Of the members that are to be started it starts one, which may take a
// while: those of a large group must not hold up everything else.
func (o *owner) expire() {
	now, started := time.Now(), false
	for id := range o.members {
		m := &o.members[id]
		if o.releasing || m.deadline.IsZero() || m.deadline.After(now) {
			continue
		}
		if m.phase == waiting && started {
			continue
		}
		m.deadline = time.Time{}
		switch m.phase {
		case waiting:
			started = true
			o.start(id)
		case starting:
			o.kill(m, fmt.Errorf("not ready within %v", o.ReadyTimeout))
		case stopping:
			o.kill(m, fmt.Errorf("not ended within %v", o.StopTimeout))
		}
	}
}

// start starts a new process of a member.
func (o *owner) start(id int) {
	m := &o.members[id]
	if o.releasing {
		m.phase, m.deadline = waiting, time.Now()
		return
	}
	m.attempts++
	p := &Process{ID: id, Attempt: m.attempts, group: o.Group}
	m.process, m.phase, m.reason, m.again, m.killed = p, starting, nil, false, false
	m.started, m.readied, m.deadline = time.Now(), time.Time{}, time.Time{}
	p.Started = m.started
	h, err := o.spawn(p)
	if err != nil {
		o.gone(p, err)
		return
	}
	p.handle = h
	o.serving.Go(func() { h.serve(p) })
	o.tell(p, Event{Kind: Started})
	if o.ReadyTimeout == 0 {
		o.ready(p)
		return
	}
	m.deadline = m.started.Add(o.ReadyTimeout)
}

func (o *owner) ready(p *Process) {
	m := &o.members[p.ID]
	if m.process != p || m.phase != starting {
		return
	}
	m.phase, m.readied, m.deadline = ready, time.Now(), time.Time{}
	o.tell(p, Event{Kind: Ready})
	if o.proven {
		return
	}
	o.proven = true
	for id := range o.members {
		if other := &o.members[id]; other.phase == unstarted && !o.StartNone {
			other.phase, other.deadline = waiting, m.readied
		}
	}
}

func (o *owner) fail(p *Process, err error) {
	if m := &o.members[p.ID]; m.process == p && m.reason == nil {
		m.reason = err
	}
}

// gone is called when a process has ended, or could not be started; err is its exit status, if not 0, or why.
func (o *owner) gone(p *Process, err error) {
	m := &o.members[p.ID]
	asked := m.phase == stopping
	uptime := time.Since(m.started)
	m.process, m.deadline = nil, time.Time{}
	if m.reason != nil { // what it said, or why it was killed, tells more than its exit status
		err = m.reason
	}
	if asked {
		o.tell(p, Event{Kind: Stopped, Err: err, Uptime: uptime})
		if m.again && !o.stopping {
			o.start(p.ID)
		} else {
			m.phase = over
		}
		return
	}
	if o.RestartPolicy != RestartAlways && succeeded(err) && !m.readied.IsZero() {
		o.tell(p, Event{Kind: Done, Err: err, Uptime: uptime})
		m.phase = over
		return
	}
	if err == nil {
		err = errors.New("ended by itself, with exit status 0")
	}
	if !m.readied.IsZero() {
		m.failures = max(0, m.failures-int(time.Since(m.readied)/o.Healthy))
	}
	m.failures++
	event := Event{Kind: Failed, Err: err, Failures: m.failures, Retry: o.retry(p.ID), Uptime: uptime}
	tooMany := o.MaxFailures > 0 && m.failures >= o.MaxFailures
	if o.stopping || !o.proven || tooMany || o.RestartPolicy == RestartNever {
		event.Retry = -1
	}
	o.tell(p, event)
	switch {
	case o.stopping:
		m.phase = over
	case !o.proven:
		o.err = &StartError{err}
		o.stop()
	case tooMany, o.RestartPolicy == RestartNever:
		m.phase = over
		if o.err == nil {
			o.err = &MemberError{p.ID, m.failures, tooMany, err}
		}
		if tooMany {
			o.stop()
		}
	default:
		m.phase, m.deadline = waiting, time.Now().Add(event.Retry)
	}
}

// succeeded reports whether a process ended with exit status 0, whatever it has left behind.
func succeeded(err error) bool { return err == nil || errors.Is(err, exec.ErrWaitDelay) }

// stop asks everybody to end, for good.
func (o *owner) stop() {
	o.stopping = true
	for id := range o.members {
		o.stopMember(id)
	}
}

func (o *owner) restart(id int) error {
	m := &o.members[id]
	switch m.phase {
	case waiting:
		o.start(id)
	case starting, ready:
		m.again = true
		o.terminate(m)
	case stopping:
		m.again = !o.stopping
	}
	return nil
}

func (o *owner) startMember(id int) error {
	if o.stopping {
		return errors.New("the group is stopping")
	}
	switch m := &o.members[id]; m.phase {
	case unstarted, waiting, over:
		o.start(id)
	case stopping:
		m.again = true
	}
	return nil
}

func (o *owner) stopMember(id int) error {
	m := &o.members[id]
	m.again = false
	if m.process == nil {
		m.phase, m.deadline = over, time.Time{}
		return nil
	}
	o.terminate(m)
	return nil
}

// terminate asks the process of a member to end, once.
func (o *owner) terminate(m *member) {
	if m.phase == stopping {
		return
	}
	m.phase, m.deadline = stopping, time.Now().Add(o.StopTimeout)
	m.process.asking.Store(true)
	err := o.Terminate(m.process)
	m.process.asking.Store(false)
	if err != nil {
		o.kill(m, fmt.Errorf("cannot ask it to end: %w", err))
	}
}

// kill kills the process of a member, once.
func (o *owner) kill(m *member, why error) {
	if m.process == nil || m.killed {
		return
	}
	m.killed, m.deadline = true, time.Time{}
	if m.reason == nil {
		m.reason = fmt.Errorf("killed: %w", why)
	}
	o.tell(m.process, Event{Kind: Killed, Err: why})
	m.process.handle.kill()
}

func (o *owner) tell(p *Process, e Event) {
	e.ID, e.PID, e.Attempt = p.ID, p.PID, p.Attempt
	o.Event(e)
}

// retry returns the delay before the next process of a member that has failed.
func (o *owner) retry(failed int) time.Duration {
	m := &o.members[failed]
	if m.failures < 2 {
		return 0
	}
	d := o.BackoffMin
	for range m.failures - 2 {
		if d > o.BackoffMax/2 { // twice as much may be more than a Duration holds
			d = o.BackoffMax
			break
		}
		d *= 2
	}
	if !o.othersTry(failed) {
		d = min(d, o.BackoffAll)
	}
	return d - rand.N(d/2+1)
}

// othersTry reports whether another member has a process, or will have one within BackoffAll.
func (o *owner) othersTry(failed int) bool {
	soon := time.Now().Add(o.BackoffAll)
	for id, m := range o.members {
		switch {
		case id == failed:
		case m.phase == starting, m.phase == ready, m.phase == stopping && m.again,
			m.phase == waiting && m.deadline.Before(soon):
			return true
		}
	}
	return false
}
