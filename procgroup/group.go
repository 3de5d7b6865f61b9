// Package procgroup runs a group of child processes and keeps them running: it starts them, learns when they
// are ready, notices at once when one ends, starts it again with growing patience, and stops them all, with a
// deadline. What they write it gives line by line.
//
// Each child is the leader of a process group of its own, so a Ctrl-C in the terminal reaches the parent
// alone, and gets a control socket: one end of a stream socket pair whose other end the parent holds. A child that
// knows of it says over it that it is ready, and learns from its end that the parent is gone, however the
// parent died; see [Inherit].
//
// On Linux the end of a child is noticed through a pidfd (Linux 5.10), without polling and without a thread
// that waits; elsewhere, and where that is not allowed, a thread waits for each child. On systems without
// fork, Run returns an error that matches [errors.ErrUnsupported].
package procgroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/internal/proc"
)

// Group is a group of child processes, its members, numbered 0 to Size-1. Set the fields, call Run once, and
// change no field afterwards.
//
// A process that ends without having been asked to has failed; RestartPolicy and MaxFailures change that. After a
// member's first failure a new process is started at once, after each further one with a delay that doubles
// (BackoffMin); a process that stays ready makes up for earlier failures, one after the other (Healthy). One member's
// failures do not delay the others, and while all have failed the delays are shorter (BackoffAll).
//
// Run starts member 0 alone, and the others once it is ready, so a fault common to all is reported once. If this very
// first process fails, Run gives up and returns its error; later Run keeps trying for as long as its context lasts. A
// group can also grow and shrink member by member; see StartNone, StartMember and StopMember.
type Group struct {
	Size int // number of members, at least 1

	// Command returns the command that a member's next process runs, each time another one. The group sets Setpgid, but
	// leaves Setsid if that is set, and adds the control socket after the ExtraFiles and to Env. It is called from Run's
	// goroutine, as Start is, which does nothing else meanwhile: it must not call the group.
	//
	// Make it by exec.Command: a process of exec.CommandContext is killed when its context ends, if that is Run's, too,
	// and not asked to end. ExtraFiles should not be what this process waits for itself, as a listener on which it
	// accepts: os/exec makes the file block (os.File.Fd), here too, since both have the same one.
	//
	// Stdin, Stdout and Stderr should be files, or nil. A Reader or a Writer takes a goroutine that copies, and which
	// goes on for as long as something that the process has started holds the other end. After the end of the process
	// it gets WaitDelay, as in os/exec, but here 0 counts as 1 s; only then is the end noticed, and exit status 0 is
	// exec.ErrWaitDelay. See Group.Output.
	Command func(id int) (*exec.Cmd, error)

	// Start starts the command, by calling cmd.Start. It is where the caller changes what a process inherits
	// from the thread that starts it, such as its CPUs (affinity.Do). Default: cmd.Start.
	Start func(id int, cmd *exec.Cmd) error

	// Output, if set, is given each line that a member writes to a Stdout or a Stderr that its command leaves nil, one
	// line at a time, in the order of each stream, from a goroutine of its own. See [LinesTo].
	//
	// It may take its time: neither the group nor a member ever waits for it. Of the lines of each stream 1 MiB may wait;
	// what comes beyond that is lost, and a Line says how many were. A last line without a newline comes when the pipe
	// ends or Run does. Lines are given also after the process has ended, to the last that it wrote, as long as
	// something that it has started writes. Before Run returns all are taken; if Output takes none for 5 s, Run leaves
	// it and what waits.
	//
	// Members write to pipes whose other ends this process has, until Run returns. Whoever goes on writing then, or when
	// this process has ended, gets SIGPIPE. Release passes the pipes on. They belong to the user that the command runs
	// as, so that it can open them by their names (/dev/stdout).
	Output func(Line)

	// MaxLine is the length of a line, in bytes, from which on it is given in parts. Default 64 KiB.
	MaxLine int

	// Serve, if set, speaks a protocol of the caller's own over the parent's end of a process's control socket,
	// and calls p.Ready itself. It runs in a goroutine of its own for each process and must return when the
	// connection ends, which it does when the process has and everything that it said is read; then the group
	// closes it, and takes note of the process's end. It must also return when a read fails with
	// os.ErrDeadlineExceeded, or p.Released, between two messages, so that another Group reads the next one; see
	// Release. Default: a process is ready when it sends its first byte.
	Serve func(p *Process, control *net.UnixConn)

	// Event, if set, is told what happens, in order and one at a time, from Run's goroutine: it must not
	// block, nor call the group.
	Event func(Event)

	// Terminate asks a process to end, by p.Signal for one; if it returns an error the process is killed. It must not
	// block, nor call the group, or other methods of p. Default: SIGTERM, then SIGCONT, without which a process that was
	// stopped, as by the terminal from which it tried to read, would not notice.
	Terminate func(p *Process) error

	// ReadyTimeout is how long a process may take from its start until it is ready; then it is killed, and
	// has failed. Default, 0: processes do not tell, and each counts as ready once it is started.
	ReadyTimeout time.Duration

	// StopTimeout is how long a process may take to end when it was asked to; then its process group is
	// killed. Default 10 s.
	StopTimeout time.Duration

	// Healthy is how long a process must have been ready for one of its member's earlier failures to be forgiven, and
	// as long again for each further one. Default 30 s.
	Healthy time.Duration

	// BackoffMin is the delay before the process that follows a second failure in a row; it doubles with
	// each further one up to BackoffMax. A random part of up to half is taken off, so that members that
	// failed together do not start together. Defaults 250 ms and 30 s.
	BackoffMin, BackoffMax time.Duration

	// BackoffAll is the longest time without an attempt while no member has a process but such as will not be replaced:
	// the member that failed last is then started again that soon, whatever its own delay. Default BackoffMax.
	BackoffAll time.Duration

	// RestartPolicy says whether a process that ends unasked is replaced. Default RestartAlways.
	RestartPolicy RestartPolicy

	// MaxFailures is the number of failures of one member, without those that were forgiven (Healthy), at which Run
	// gives up: it asks all others to end, and returns a [*MemberError]. Default, 0: Run never does.
	MaxFailures int

	// KillGroup has what a process leaves behind in its process group killed when it has ended, in whatever way and
	// before the next one is started. Default: it lives on, unless the process itself had to be killed. Linux; elsewhere
	// it says nothing.
	KillGroup bool

	// ReapOrphans has Run reap the children of this process that end and that nobody waits for: process 1 of a container
	// inherits those whose parent has ended, as a subreaper does (prctl(2)), and else they stay, as zombies. In a program
	// that does so, whoever starts other processes must wait for them within a second of their end, as exec.Cmd.Run does.
	// Linux; elsewhere, and where nothing is inherited when Run begins, it says nothing.
	//
	// Do not reap by wait4(-1), or a package that does, beside a group: it takes the exit status of members away.
	ReapOrphans bool

	// StartNone has Run start no member: each is started by StartMember.
	StartNone bool

	// Adopt, if set, is what Release of another Group returned, of the same Size: the group begins with these
	// processes, which must be children of this process. It closes their files.
	Adopt *State

	spawn func(*Process) (handle, error)           // starts a process and sets its PID; a fake one in tests
	adopt func(*Process, *os.File) (handle, error) // takes over one that is there; a fake one in tests

	out *output // set by Run

	ran   atomic.Bool
	init  sync.Once
	begun chan struct{}     // closed when Run begins
	inbox chan func(*owner) // what others ask of the goroutine that owns the state
	ended chan struct{}     // closed when that goroutine no longer reads the inbox
	over  chan struct{}     // closed when nothing of what Run started is left
	state *State            // what Release returns; set before ended is closed
}

// Run starts the group and keeps it running until ctx ends. It then asks every process to end and returns nil
// when all have ended, at the latest StopTimeout later. It can be called once. If the very first process fails, the
// error has a [*StartError]; see MaxFailures and RestartNever for a [*MemberError] ([errors.AsType] finds them). After
// Release it returns [ErrReleased], while the processes go on.
func (g *Group) Run(ctx context.Context) error {
	if !g.ran.CompareAndSwap(false, true) {
		return errors.New("procgroup: Run was called before")
	}
	g.setup()
	defer close(g.over)
	if err := g.check(); err != nil {
		close(g.ended)
		close(g.begun)
		return fmt.Errorf("procgroup: %w", err)
	}
	g.out = newOutput(g.Output, g.MaxLine)
	close(g.begun)
	o := &owner{Group: g, members: make([]member, g.Size)}
	if g.ReapOrphans && proc.InheritsOrphans() {
		o.serving.Go(func() { reapOrphans(g.ended) })
	}
	err := o.run(ctx)
	o.serving.Wait()
	g.out.end()
	if err != nil {
		return fmt.Errorf("procgroup: %w", err)
	}
	return nil
}

// check reports what is wrong with the fields, and sets the defaults.
func (g *Group) check() error {
	switch {
	case g.Size < 1:
		return fmt.Errorf("a group of %d processes: there must be at least one", g.Size)
	case g.Adopt != nil && len(g.Adopt.Members) != g.Size:
		return fmt.Errorf("a group of %d processes adopts %d", g.Size, len(g.Adopt.Members))
	case g.Command == nil && g.spawn == nil:
		return errors.New("the group has no Command")
	case min(g.ReadyTimeout, g.StopTimeout, g.Healthy, g.BackoffMin, g.BackoffMax, g.BackoffAll) < 0:
		return errors.New("a duration is negative")
	case g.RestartPolicy < RestartAlways || g.RestartPolicy > RestartNever:
		return fmt.Errorf("no such policy: %v", g.RestartPolicy)
	case g.MaxFailures < 0 || g.MaxLine < 0:
		return fmt.Errorf("MaxFailures or MaxLine is negative: %d, %d", g.MaxFailures, g.MaxLine)
	}
	g.MaxLine = cmp.Or(g.MaxLine, 64<<10)
	g.StopTimeout = cmp.Or(g.StopTimeout, 10*time.Second)
	g.Healthy = cmp.Or(g.Healthy, 30*time.Second)
	g.BackoffMin = cmp.Or(g.BackoffMin, 250*time.Millisecond)
	g.BackoffMax = max(cmp.Or(g.BackoffMax, 30*time.Second), g.BackoffMin)
	g.BackoffAll = cmp.Or(g.BackoffAll, g.BackoffMax)
	if g.Start == nil {
		g.Start = func(_ int, cmd *exec.Cmd) error { return cmd.Start() }
	}
	if g.Serve == nil {
		g.Serve = serveFirstByte
	}
	if g.Terminate == nil {
		g.Terminate = func(p *Process) error { return askToEnd(p.handle.signal) }
	}
	if g.Event == nil {
		g.Event = func(Event) {}
	}
	if g.spawn == nil {
		g.spawn = g.startProcess
	}
	if g.adopt == nil {
		g.adopt = g.adoptProcess
	}
	return nil
}

func (g *Group) setup() {
	g.init.Do(func() {
		g.begun = make(chan struct{})
		g.inbox = make(chan func(*owner))
		g.ended = make(chan struct{})
		g.over = make(chan struct{})
	})
}

// post has f run by the owner's goroutine, and reports whether it will be: not before Run nor after it.
func (g *Group) post(f func(*owner)) bool {
	g.setup()
	select {
	case <-g.begun:
	default:
		return false
	}
	select {
	case g.inbox <- f:
		return true
	case <-g.ended:
		return false
	}
}

// do is post, and waits until f has run.
func (g *Group) do(f func(*owner)) bool {
	done := make(chan struct{})
	ok := g.post(func(o *owner) { defer close(done); f(o) })
	if ok {
		<-done
	}
	return ok
}

// Member tells how one member does.
type Member struct {
	ID       int
	PID      int // 0 if it has no process now
	Attempt  int // how many processes it has had, the present one included
	Ready    bool
	Failures int       // that were not forgiven yet
	Started  time.Time // when the process was; zero if it has none
}

// Members returns how each member does, in the order of their numbers; nil before Run and after it.
func (g *Group) Members() []Member {
	var all []Member
	g.do(func(o *owner) {
		for id, m := range o.members {
			one := Member{ID: id, Attempt: m.attempts, Ready: m.phase == ready, Failures: m.failures}
			if m.process != nil {
				one.PID, one.Started = m.process.PID, m.started
			}
			all = append(all, one)
		}
	})
	return all
}

// Signal sends a signal to every process of the group.
func (g *Group) Signal(s os.Signal) error {
	var errs []error
	g.do(func(o *owner) {
		for _, m := range o.members {
			if m.process != nil {
				errs = append(errs, m.process.handle.signal(s))
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("procgroup: signal group: %w", err)
	}
	return nil
}

// Restart asks the process of a member to end and starts a new one when it has. It does not wait for that. A
// member that is waiting for its next attempt starts at once; one that was not started, or was stopped, stays so.
func (g *Group) Restart(id int) error { return g.ask("restart", id, (*owner).restart) }

// StartMember starts a process of a member that has none because of StartNone, or because it was stopped. It waits for
// Run to begin, but not for the process to be ready. A member that is waiting for its next attempt starts at once.
func (g *Group) StartMember(id int) error {
	g.setup()
	<-g.begun
	return g.ask("start", id, (*owner).startMember)
}

// StopMember asks the process of a member to end and starts no other, until the member is started again. It waits for
// Run to begin, but not for the process to end. When every member has been stopped, and none is left, Run returns nil.
func (g *Group) StopMember(id int) error {
	g.setup()
	<-g.begun
	return g.ask("stop", id, (*owner).stopMember)
}

// ask has the owner do something about a member.
func (g *Group) ask(what string, id int, do func(*owner, int) error) error {
	err := errors.New("the group is not running")
	g.do(func(o *owner) {
		if id < 0 || id >= len(o.members) {
			err = fmt.Errorf("there are members 0 to %d", len(o.members)-1)
			return
		}
		err = do(o, id)
	})
	if err != nil {
		return fmt.Errorf("procgroup: %s member %d: %w", what, id, err)
	}
	return nil
}

// Kill kills every process of the group, with what it has started that is still in its process group. While
// Run's context lasts they are replaced; afterwards it cuts the time to StopTimeout short. With Adopt it waits for
// Run to begin.
func (g *Group) Kill() {
	if g.Adopt != nil {
		g.setup()
		<-g.begun
	}
	g.do(func(o *owner) {
		for id := range o.members {
			o.kill(&o.members[id], errors.New("asked to"))
		}
	})
}
