package procgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// ErrReleased is the error of Run after Release.
var ErrReleased = errors.New("the processes were released")

// State is what a Group knows of its processes, for another that adopts them. Everything but the files can be marshaled
// as JSON, so that the other Group can be in a program that takes this one's place by execve(2): the
// processes remain children then.
type State struct {
	Stopping bool          `json:"stopping,omitempty"`
	Proven   bool          `json:"proven,omitempty"`
	Error    string        `json:"error,omitempty"` // what Run will return when all have ended
	Members  []MemberState `json:"members"`
}

// MemberState is what a Group knows of a member.
type MemberState struct {
	Phase    string `json:"phase"`
	PID      int    `json:"pid,omitempty"` // 0 if it has no process
	Attempts int    `json:"attempts,omitempty"`
	Failures int    `json:"failures,omitempty"`
	Again    bool   `json:"again,omitempty"`
	Killed   bool   `json:"killed,omitempty"`
	Reason   string `json:"reason,omitempty"`

	// Times are counted from when the state was taken, in nanoseconds, so that a clock that is set meanwhile changes
	// none.
	Age      time.Duration  `json:"age,omitempty"`      // since the process was started
	ReadyFor *time.Duration `json:"readyFor,omitempty"` // since it was ready; nil if it never was
	Left     *time.Duration `json:"left,omitempty"`     // until the phase has lasted too long; nil if it may last

	started time.Time // the same as Age, in the process in which it was taken

	Control *os.File `json:"-"` // the parent's end; nil if it has no process

	// What Output reads, nil if that is nothing, and what was read of a line that is not complete. A process to whose
	// pipe nobody listens any more gets SIGPIPE.
	Stdout     *os.File `json:"-"`
	Stderr     *os.File `json:"-"`
	StdoutPart []byte   `json:"stdoutPart,omitempty"`
	StderrPart []byte   `json:"stderrPart,omitempty"`
}

// phaseNames are the phases in a State, in the order of the constants.
var phaseNames = []string{"unstarted", "waiting", "starting", "ready", "stopping", "over"}

// Release makes Run return while the processes go on, and returns what another Group needs to adopt them: one in
// this process, or, with the files inherited, one in the program that takes its place. Until then nobody notices their
// end. It waits for Run to begin, and returns nil if Run has ended. The files are the caller's.
//
// What commands have for Stdin, Stdout and Stderr must be files, or nil, since nobody copies for them afterwards. When
// Release returns, Output has been given all lines that were read, and the next group's Output gets what follows; a
// group without one reads and forgets it. What a process that has ended has left behind is not read any more.
func (g *Group) Release() *State {
	g.setup()
	<-g.begun
	g.post(func(o *owner) { o.release() })
	<-g.ended
	<-g.over
	return g.state
}

// release begins to let go of the processes.
func (o *owner) release() {
	o.releasing = true
	for id := range o.members {
		m := &o.members[id]
		if p := m.process; p != nil {
			p.released.Store(true)
			p.handle.release(p, func() { o.post(func(*owner) { m.detached = m.process == p }) })
		}
	}
}

// letGo reports whether no process is anybody's any more, and then notes what there is.
func (o *owner) letGo() bool {
	if slices.ContainsFunc(o.members, func(m member) bool { return m.process != nil && !m.detached }) {
		return false
	}
	now := time.Now()
	s := &State{Stopping: o.stopping, Proven: o.proven}
	if o.err != nil {
		s.Error = o.err.Error()
	}
	for _, m := range o.members {
		ms := MemberState{
			Phase: phaseNames[m.phase], Attempts: m.attempts, Failures: m.failures, Again: m.again, Killed: m.killed,
			ReadyFor: until(now, m.readied, -1), Left: until(now, m.deadline, 1),
		}
		if !m.started.IsZero() {
			ms.Age, ms.started = now.Sub(m.started), m.started
		}
		if m.reason != nil {
			ms.Reason = m.reason.Error()
		}
		if m.process != nil {
			ms.PID = m.process.PID
			ms.Control, _ = m.process.handle.control() // without one, the adopter asks the process to end
			ms.save(m.process.streams)
		}
		s.Members = append(s.Members, ms)
	}
	o.state = s
	return true
}

// until returns the time from now to t, with a sign; nil if t is zero.
func until(now, t time.Time, sign time.Duration) *time.Duration {
	if t.IsZero() {
		return nil
	}
	d := sign * t.Sub(now)
	return &d
}

// at returns the time that is d from now, with a sign; zero if d is nil.
func at(now time.Time, d *time.Duration, sign time.Duration) time.Time {
	if d == nil {
		return time.Time{}
	}
	return now.Add(sign * *d)
}

// takeOver begins with the processes of another group.
func (o *owner) takeOver(s *State) {
	now := time.Now()
	o.stopping, o.proven = s.Stopping, s.Proven
	if s.Error != "" {
		o.err = errors.New(s.Error)
	}
	for id, ms := range s.Members {
		m := &o.members[id]
		if ms.started.IsZero() {
			ms.started = now.Add(-ms.Age)
		}
		*m = member{
			phase: phase(max(0, slices.Index(phaseNames, ms.Phase))), attempts: ms.Attempts, failures: ms.Failures,
			again: ms.Again, killed: ms.Killed, started: ms.started,
			readied: at(now, ms.ReadyFor, -1), deadline: at(now, ms.Left, 1),
		}
		if ms.Reason != "" {
			m.reason = errors.New(ms.Reason)
		}
		if ms.PID == 0 {
			continue
		}
		p := &Process{ID: id, Attempt: ms.Attempts, PID: ms.PID, Started: m.started, group: o.Group}
		m.process = p
		ms.load(p)
		h, err := o.adopt(p, ms.Control)
		if err != nil {
			o.gone(p, fmt.Errorf("adopt process %d: %w", ms.PID, err))
			continue
		}
		p.handle = h
		o.serving.Go(func() { h.serve(p) })
	}
}
