// Package upgrade replaces a running server by the executable that is on disk now, without closing its sockets: they, and
// files and a small state, are handed to the successor.
//
// There are two ways. By default the successor is a new process, which runs beside the old one until it is ready; if it
// does not become ready nothing has happened. With [Config.InPlace] the program becomes the new one in the same process,
// by execve(2), once it has finished what it was doing: the process ID stays, for a container whose first process this
// is, a terminal, or a service manager.
//
//	u, err := upgrade.New(nil)
//	l, err := u.Listen(ctx, "tcp", ":8080")
//	go srv.Serve(l)
//	err = u.Ready()                // the predecessor may go
//	go func() {
//		for range hangups {
//			log.Print(u.Upgrade(ctx)) // why it did not work; nil if it did
//		}
//	}()
//	<-u.Done()                     // a successor has taken over, or Close was called
//	srv.Shutdown(ctx)              // finish what is there
//	err = u.Finish()               // in place, this does not return
//
// The sockets stay open from the first process to the last: connections that nobody accepts for a moment wait in their
// queues. What is lost is lost by the server that stops: a connection on which a request arrives while
// [net/http.Server.Shutdown] runs is closed without an answer. Package pack does better.
//
// Descriptors travel over a Unix socket pair that both processes inherit. It works on Linux, macOS and the BSDs, in place
// on Linux only; elsewhere [Upgrader.Upgrade] returns an error that matches [errors.ErrUnsupported].
package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gopherpack/gopherpack/internal/executable"
)

var (
	// ErrInProgress is the error of Upgrade while another call has not returned.
	ErrInProgress = errors.New("an upgrade is in progress")

	// ErrDone is the error of Upgrade when a successor has taken over already, or Close was called.
	ErrDone = errors.New("this process has handed over, or is closed")
)

// Config has options. The zero value, and nil, are good defaults. The fields must not change after New.
type Config struct {
	// InPlace becomes the new program in this process instead of starting another. The new executable is tried out
	// before, as far as New, so that one that cannot run is found while there is a way back.
	InPlace bool

	// Path is where the executable of the successor is. Default: where this program was started from, with symbolic
	// links not resolved, so that a link can be turned to another version.
	Path string

	// ReadyTimeout is how long a new process may take until it calls Ready; then it is killed. Default 60 s.
	ReadyTimeout time.Duration

	// MaxDraining is how many predecessors may still be finishing when this process is to be replaced, too. Default 4.
	MaxDraining int

	// ListenConfig opens sockets that are not inherited. Default: one without Multipath TCP.
	ListenConfig *net.ListenConfig
}

// StateLimit is how long the state may be, in bytes.
const StateLimit = 32 << 10

// Upgrader holds what is handed to the successor. Its methods are safe for concurrent use.
type Upgrader struct {
	config Config
	path   string

	succeeds  bool       // there was a predecessor
	parent    *control   // to the predecessor; nil if there is none, or it was this process
	ancestors []*os.File // end with processes before that

	mu        sync.Mutex
	busy      bool // Upgrade runs
	ready     bool
	handed    bool           // a successor has taken over, or will in Finish
	child     *control       // to the successor; held until this process ends, which tells it
	items     map[name]*item // what this process hands on
	inherited map[name]*item // what it has not asked for yet
	given     []byte         // the predecessor's state
	state     []byte         // for the successor
	done      chan struct{}
}

// New takes over what a predecessor hands on, if there is one. It must be called early, before the program starts others,
// and once. In a program that only tries out whether it could be an in-place successor, New ends the process.
func New(c *Config) (*Upgrader, error) {
	u := &Upgrader{items: map[name]*item{}, inherited: map[name]*item{}, done: make(chan struct{})}
	if c != nil {
		u.config = *c
	}
	u.config.ReadyTimeout = cmp.Or(u.config.ReadyTimeout, 60*time.Second)
	u.config.MaxDraining = cmp.Or(u.config.MaxDraining, 4)
	if u.config.ReadyTimeout < 0 || u.config.MaxDraining < 0 {
		return nil, fmt.Errorf("upgrade: a negative ReadyTimeout or MaxDraining: %v, %d", u.config.ReadyTimeout, u.config.MaxDraining)
	}
	u.path = u.config.Path
	if u.path == "" {
		var err error
		if u.path, err = executable.Path(); err != nil {
			return nil, fmt.Errorf("upgrade: %w", err)
		}
	}
	if err := u.inherit(); err != nil {
		return nil, fmt.Errorf("upgrade: take over from the predecessor: %w", err)
	}
	return u, nil
}

// Inherited reports whether there was a predecessor.
func (u *Upgrader) Inherited() bool {
	return u.succeeds
}

// State returns what the predecessor set by SetState, nil if there is none.
func (u *Upgrader) State() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.given)
}

// SetState sets what the successor gets by State, at most StateLimit bytes. What counts is the last call before Upgrade,
// or in place before Finish.
func (u *Upgrader) SetState(state []byte) error {
	if len(state) > StateLimit {
		return fmt.Errorf("upgrade: a state of %d bytes: at most %d", len(state), StateLimit)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state = append([]byte{}, state...)
	return nil
}

// Ready tells the predecessor that this process serves, so that it finishes. What was inherited and not asked for is
// closed. Until it is called this process cannot be replaced.
func (u *Upgrader) Ready() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ready = true
	for n, i := range u.inherited {
		i.file.Close()
		if i.path != "" {
			os.Remove(i.path)
		}
		delete(u.inherited, n)
	}
	if u.parent == nil {
		return nil
	}
	if err := u.parent.send(message{Type: msgReady}); err != nil && !isGone(err) {
		return fmt.Errorf("upgrade: tell the predecessor: %w", err)
	}
	return nil
}

// Upgrade starts the successor and waits until it is ready; then Done is closed and the error is nil. If it does not
// become ready, the error says why and this process goes on as if nothing had happened. It gives up when ctx ends.
//
// In place, it tries the executable out and closes Done; Finish then becomes the program.
//
// Errors match [ErrInProgress], [ErrDone], [os.ErrNotExist] for an executable that is not there, or the errno of what
// failed.
func (u *Upgrader) Upgrade(ctx context.Context) error {
	if err := u.begin(); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	child, err := u.launch(ctx)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.busy = false
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	if u.handed { // Close was called meanwhile
		if child != nil {
			child.close()
		}
		return nil
	}
	u.child, u.handed = child, true
	close(u.done)
	return nil
}

// begin reports why there cannot be an upgrade now.
func (u *Upgrader) begin() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.handed:
		return ErrDone
	case u.busy:
		return ErrInProgress
	case !u.ready:
		return errors.New("this process is not ready itself: Ready was not called")
	}
	if n := u.draining(); n > u.config.MaxDraining {
		return fmt.Errorf("%d predecessors have not ended yet, and MaxDraining is %d", n, u.config.MaxDraining)
	}
	u.busy = true
	return nil
}

// launch starts the successor and waits until it is ready. In place there is none yet.
func (u *Upgrader) launch(ctx context.Context) (*control, error) {
	image, err := executable.Open(u.path)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, u.config.ReadyTimeout, fmt.Errorf("not ready within %v", u.config.ReadyTimeout))
	defer cancel()
	if u.config.InPlace {
		return nil, tryOut(ctx, image)
	}
	if os.Getpid() == 1 {
		return nil, errors.New("process 1 cannot hand over to another process: set Config.InPlace")
	}
	return u.start(ctx, image)
}

// Done is closed when a successor has taken over, or Close was called: then stop accepting, finish, and call Finish.
func (u *Upgrader) Done() <-chan struct{} { return u.done }

// Finish is called when this process has finished what it was doing. In place it becomes the new program, and returns
// only if that fails. Otherwise it returns nil and the process should end, which tells the successor.
func (u *Upgrader) Finish() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.config.InPlace || !u.handed || u.items == nil {
		return nil
	}
	if err := u.become(); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

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

// Close gives up the sockets, for a program that ends without a successor: Unix sockets are removed from the file system.
// If a successor has taken over it only closes this process's copies. Done is closed.
func (u *Upgrader) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for _, all := range []map[name]*item{u.items, u.inherited} {
		for _, i := range all {
			errs = append(errs, i.file.Close())
			if i.path != "" && !u.handed {
				if err := os.Remove(i.path); !errors.Is(err, os.ErrNotExist) {
					errs = append(errs, err)
				}
			}
		}
	}
	u.items, u.inherited = nil, nil
	if !u.handed {
		u.handed = true
		close(u.done)
	}
	if u.parent != nil {
		u.parent.close()
	}
	for _, f := range u.ancestors {
		f.Close()
	}
	u.ancestors = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("upgrade: close: %w", err)
	}
	return nil
}
