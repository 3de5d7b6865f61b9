package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	// ErrInProgress is the error of Upgrade while another call has not returned.
	ErrInProgress = errors.New("an upgrade is in progress")

	// ErrDone is the error of Upgrade and others when a successor has taken over already, or Close was called.
	ErrDone = errors.New("this process has handed over, or is closed")
)

// Config has options. The zero value, and nil, are good defaults. The fields must not change after New.
type Config struct {
	// InPlace becomes the new program in this process instead of starting another. The new executable is tried out
	// before, as far as New: see [Preflight].
	InPlace bool

	// Path is where the executable of the successor is. Default: what the function Path returns.
	Path string

	// ReadyTimeout is how long a new process may take until it calls Ready, and one that is tried out until it calls New;
	// then it is killed. Default 60 s.
	ReadyTimeout time.Duration

	// MaxDraining is how many predecessors may still be finishing when this process is to be replaced, too. Default 4.
	MaxDraining int

	// PIDFile is a file with the ID of the process that serves: of this one from Ready on, and of its successor from when
	// that has taken over, which is before this one ends. So it is what PIDFile= of systemd wants. It is replaced as a
	// whole, and holds what it did if an upgrade fails. Finish removes it, when Close was called. A relative path starts
	// from [Dir]. Default: none.
	PIDFile string

	// ListenConfig opens sockets that are not inherited. Default: one without Multipath TCP.
	ListenConfig *net.ListenConfig

	// Signals says what happens to signals in place, while there are neither the old handlers nor the new ones.
	// Default: SIGTERM and SIGINT stop the program, SIGHUP, SIGUSR1 and SIGUSR2 are ignored.
	Signals Signals
}

// phase is where an Upgrader is in its life.
type phase int

const (
	starting phase = iota // Ready has not been called
	serving
	leaving  // in place: what it does is finished, then it becomes the successor
	replaced // a new process has taken over
	closed
)

// Upgrader holds what is handed to the successor. Its methods are safe for concurrent use.
type Upgrader struct {
	config  Config
	path    string
	pidFile string

	succeeds bool     // there was a predecessor
	parent   *control // to the predecessor; nil if there is none, or it was this process
	estate   *Estate  // from the predecessor, if it was this process
	given    []byte   // the predecessor's state

	mu        sync.Mutex
	phase     phase
	busy      *attempt       // Upgrade or Finish runs
	child     *control       // to the successor; held until this process ends, which tells it
	image     *Image         // of the successor, in place
	stop      *stopWatch     // from when the successor was tried out, in place
	items     map[name]*item // what this process hands on
	inherited map[name]*item // what it has not asked for yet
	claimed   map[name]bool  // sockets that were asked for
	retired   []*os.File     // copies that were replaced, and that a successor or a predecessor may be getting yet
	ancestors []*os.File     // end with processes before the predecessor
	state     []byte         // for the successor
	done      chan struct{}
}

// attempt is a call of Upgrade or Finish that has not returned.
type attempt struct {
	cancel context.CancelCauseFunc
	ended  chan struct{}
}

// only is what New has returned. It is referred to until the process ends: if it were collected as garbage, its
// descriptors would be closed, and the successor would take this process for ended.
var only atomic.Pointer[Upgrader]

// New takes over what a predecessor hands on, if there is one. It must be called once, a second call is an error, and
// early: what a program starts, opens or changes before, a program that is only tried out does, too.
//
// In such a program New ends the process. If New cannot take over from a predecessor it tells it so: in place it
// becomes the predecessor's executable again, and does not return; otherwise this program should end.
func New(c *Config) (*Upgrader, error) {
	u := &Upgrader{
		items: map[name]*item{}, inherited: map[name]*item{}, claimed: map[name]bool{}, done: make(chan struct{}),
	}
	if !only.CompareAndSwap(nil, u) {
		return nil, errors.New("upgrade: New was called before")
	}
	err := u.configure(c)
	if q := Asked(); q != nil {
		answer(q, err)
	}
	if err = errors.Join(u.takeOver(), err); err != nil {
		return nil, u.HandBack(fmt.Errorf("upgrade: %w", err))
	}
	return u, nil
}

func (u *Upgrader) configure(c *Config) (err error) {
	if c != nil {
		u.config = *c
	}
	if s := &u.config.Signals; s.Stop == nil && s.Ignore == nil {
		s.Stop, s.Ignore = []os.Signal{syscall.SIGTERM, os.Interrupt}, usualSignals
	}
	u.config.ReadyTimeout = cmp.Or(u.config.ReadyTimeout, 60*time.Second)
	u.config.MaxDraining = cmp.Or(u.config.MaxDraining, 4)
	if u.config.ReadyTimeout < 0 || u.config.MaxDraining < 0 {
		return fmt.Errorf("a negative ReadyTimeout or MaxDraining: %v, %d", u.config.ReadyTimeout, u.config.MaxDraining)
	}
	if u.path, err = started.path, started.pathErr; u.config.Path != "" {
		u.path, err = filepath.Abs(u.config.Path)
	}
	if err == nil {
		u.pidFile, err = pidPath(u.config.PIDFile)
	}
	return err
}

// takeOver takes over from a predecessor, if there is one.
func (u *Upgrader) takeOver() (err error) {
	var all *holdings
	switch {
	case Inherited() != nil:
		u.estate = Inherited()
		all, err = u.estate.holdings()
	case started.successor != nil:
		u.parent, all, err = connect(started.successor)
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("take over from the predecessor: %w", err)
	}
	u.succeeds = true
	u.inherited, u.given, u.state = all.items, all.state, all.state
	for _, a := range all.ancestors {
		u.ancestors = append(u.ancestors, a.(*os.File))
	}
	return nil
}

// Inherited reports whether there was a predecessor.
func (u *Upgrader) Inherited() bool { return u.succeeds }

// Returned returns why the successor has handed back, if this is the predecessor's executable again, in place. Else it
// returns "".
func (u *Upgrader) Returned() string {
	if u.estate == nil {
		return ""
	}
	return u.estate.Returned
}

// State returns what the predecessor set by SetState, nil if there is none. The slice is the caller's.
func (u *Upgrader) State() []byte { return slices.Clone(u.given) }

// SetState sets what the successor gets by State. It may be of any size. What counts is the last call before Upgrade,
// or in place before Finish; without one, it is what State returns.
func (u *Upgrader) SetState(state []byte) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.phase == replaced || u.phase == closed {
		return fmt.Errorf("upgrade: set the state: %w", ErrDone)
	}
	u.state = append([]byte{}, state...)
	return nil
}

// Ready tells the predecessor that this process serves, and returns when the predecessor has begun to finish, or has
// ended. What was inherited and not asked for is closed. In place there is no way back from then on. Until Ready is
// called this process cannot be replaced. If it fails, HandBack is what can be done.
func (u *Upgrader) Ready() error {
	pid, err := writePID(u.pidFile, os.Getpid())
	if err != nil {
		return fmt.Errorf("upgrade: ready: %w", err)
	}
	defer pid.discard()
	if u.parent != nil {
		if err := u.parent.ready(); err != nil && !errors.Is(err, net.ErrClosed) { // which Close has done
			return fmt.Errorf("upgrade: tell the predecessor: %w", err)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.phase {
	case starting:
	case closed:
		return fmt.Errorf("upgrade: ready: %w", ErrDone)
	default:
		return nil
	}
	// A predecessor that was a process of its own has done so, unless it was killed, and does not serve any more.
	if err := pid.commit(); err != nil && u.parent == nil {
		return fmt.Errorf("upgrade: ready: %w", err)
	}
	for n, i := range u.inherited {
		i.close(true)
		delete(u.inherited, n)
	}
	if u.estate != nil {
		u.estate.Files = nil // they are items, or were
		u.estate.Close()
	}
	u.phase = serving
	u.retire()
	return nil
}

// Done is closed when a successor has taken over, or Close was called: then stop accepting, finish, and call Finish.
func (u *Upgrader) Done() <-chan struct{} { return u.done }

// WaitParent waits until the predecessor has ended, at once if there is none, or until ctx ends.
func (u *Upgrader) WaitParent(ctx context.Context) error {
	if u.parent == nil {
		return nil
	}
	select {
	case <-u.parent.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("upgrade: wait for the predecessor: %w", context.Cause(ctx))
	}
}
