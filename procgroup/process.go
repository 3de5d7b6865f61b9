package procgroup

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// Process is one process of a member. Its methods are safe for concurrent use; they do nothing once the
// process has ended.
type Process struct {
	ID      int // the member
	Attempt int // 1 for the member's first process
	PID     int // 0 until it is started
	Started time.Time

	group    *Group
	handle   handle
	streams  []*stream // of what it writes, if anybody wants that
	released atomic.Bool
	asking   atomic.Bool // Terminate is being called, so that the owner has no time for Signal
}

// handle is what the group needs to deal with a started process. When the process has ended, its maker has
// owner.gone called.
type handle interface {
	signal(os.Signal) error
	kill()            // the process and what it started that is in its process group
	serve(p *Process) // returns when the process has ended, or is released

	// release has serve return, and then done called, while the process goes on. It returns false if the end
	// of the process is being dealt with already.
	release(p *Process, done func()) bool
	control() (*os.File, error) // the parent's end, once serve has returned
}

// Ready tells the group that the process is ready to work.
func (p *Process) Ready() { p.group.post(func(o *owner) { o.ready(p) }) }

// Fail tells the group why the process is about to end, for the event and for Run's error. The process has
// failed then, whatever its exit status, unless it was asked to end.
func (p *Process) Fail(err error) { p.group.post(func(o *owner) { o.fail(p, err) }) }

// Kill kills the process, with what it has started that is still in its process group, because of why. It has failed
// then, unless it was asked to end.
func (p *Process) Kill(why error) {
	p.group.do(func(o *owner) {
		if m := &o.members[p.ID]; m.process == p {
			o.kill(m, why)
		}
	})
}

// Restart asks the process to end, and has a new one started in its place when it has. It does not wait for that, and
// does nothing if the process has ended: unlike Group.Restart it never means the one that follows.
func (p *Process) Restart() {
	p.group.do(func(o *owner) {
		if o.members[p.ID].process == p {
			o.restart(p.ID)
		}
	})
}

// Released reports whether the group is about to let go of the process; see Group.Release.
func (p *Process) Released() bool { return p.released.Load() }

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error {
	err := errors.New("the process has ended")
	if p.asking.Load() {
		err = p.handle.signal(s)
	} else {
		p.group.do(func(o *owner) {
			if o.members[p.ID].process == p {
				err = p.handle.signal(s)
			}
		})
	}
	if err != nil {
		return fmt.Errorf("procgroup: signal member %d (pid %d): %w", p.ID, p.PID, err)
	}
	return nil
}
