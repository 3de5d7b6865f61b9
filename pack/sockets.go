package pack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/gopherpack/gopherpack/internal/inplace"
	"github.com/gopherpack/gopherpack/reuseport"
)

// sockets are the listening sockets of a pack, which the master holds and never accepts from. Safe for
// concurrent use.
type sockets struct {
	files socketFiles // how files of Unix sockets are made

	mu     sync.Mutex
	open   map[endpoint]*socketSet
	closed bool

	// If something is steered, attach steers the sockets of the first among workers.
	steering func(endpoint, []net.Listener, *os.File) (byProgram bool)
	among    int
}

// socketSet is the sockets of one endpoint.
type socketSet struct {
	listeners []net.Listener // one per worker, or one for all if it is shared
	shared    bool
	inherited *os.File // what the steering of a predecessor left; nil if nothing
	steered   bool     // a program that knows the sockets chooses among them
	path      string   // of a Unix socket in the file system
	inode     fileID   // of path, to remove no other's
}

// descriptor is a listener that can be handed over.
type descriptor interface {
	net.Listener
	syscall.Conn
}

// get returns a worker's socket of an endpoint, and opens those of all workers if need be.
func (s *sockets) get(ctx context.Context, e endpoint, worker, workers int) (descriptor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("listen %s: the pack is stopping", e)
	}
	set := s.open[e]
	if set == nil {
		var err error
		if set, err = s.openSet(ctx, e, workers); err != nil {
			return nil, explain(err)
		}
		if s.open == nil {
			s.open = map[endpoint]*socketSet{}
		}
		s.open[e] = set
		s.attach(e, set)
	}
	return set.listeners[worker%len(set.listeners)].(descriptor), nil
}

func (s *sockets) openSet(ctx context.Context, e endpoint, workers int) (*socketSet, error) {
	switch e.Network {
	case "tcp", "tcp4", "tcp6":
		return openTCP(ctx, e, workers)
	case "unix":
		return openUnix(ctx, e.Address, s.files)
	}
	return nil, fmt.Errorf("listen %s: want the network to be tcp, tcp4, tcp6 or unix: %w", e, net.UnknownNetworkError(e.Network))
}

func openTCP(ctx context.Context, e endpoint, workers int) (*socketSet, error) {
	shared := false
	config := reuseport.Config{Exclusive: true}
	listeners, err := config.ListenGroup(ctx, e.Network, e.Address, workers)
	if errors.Is(err, errors.ErrUnsupported) {
		var one net.Listener
		if one, err = new(net.ListenConfig).Listen(ctx, e.Network, e.Address); err == nil {
			listeners, shared = []net.Listener{one}, true
		}
	}
	if err != nil {
		// What is wrong is told by the *net.OpError; that it happened in package reuseport is not.
		if op, ok := errors.AsType[*net.OpError](err); ok {
			return nil, op
		}
		return nil, err
	}
	return &socketSet{listeners: listeners, shared: shared}, nil
}

// explain adds what to do to the errors that users meet most.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w (is another instance running? ss -lntxp shows who listens)", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w (ports below net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE, Unix sockets a writable directory)", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w (no interface of this machine has that address)", err)
	}
	return err
}

// shared reports whether workers share one TCP socket because the system cannot do better.
func (s *sockets) shared() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e, set := range s.open {
		if e.Network != "unix" && set.shared {
			return true
		}
	}
	return false
}

// steer has attach called with the sockets of the first n workers, for each endpoint that is open or will be. It says
// whether a program chooses among them that knows them.
func (s *sockets) steer(n int, attach func(endpoint, []net.Listener, *os.File) (byProgram bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steering, s.among = attach, n
	for e, set := range s.open {
		s.attach(e, set)
	}
}

// attach steers an endpoint, if that is wanted and can be. It is called with mu locked.
func (s *sockets) attach(e endpoint, set *socketSet) {
	if s.steering != nil && !set.shared && s.among <= len(set.listeners) {
		set.steered = s.steering(e, set.listeners[:s.among], set.inherited)
		set.inherited = nil
	}
}

// addresses returns what is listened on, for the log.
func (s *sockets) addresses() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for e, set := range s.open {
		all = append(all, e.Network+" "+set.listeners[0].Addr().String())
	}
	slices.Sort(all)
	return all
}

// grow opens sockets for more workers, if n is more. Nothing comes to them before direct is called, so until then they
// can be closed again without a loss.
func (s *sockets) grow(ctx context.Context, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e, set := range s.open {
		if set.shared || n <= len(set.listeners) {
			continue
		}
		first := set.listeners[0].(*net.TCPListener)
		if !set.steered { // a program that knows the sockets chooses no others
			if err := reuseport.Limit(first, len(set.listeners)); err != nil {
				return fmt.Errorf("more sockets for %s: %w", e, err)
			}
		}
		for len(set.listeners) < n {
			l, err := reuseport.Listen(ctx, e.Network, first.Addr().String())
			if err != nil {
				return fmt.Errorf("more sockets for %s: %w", e, err)
			}
			set.listeners = append(set.listeners, l)
		}
	}
	return nil
}

// direct has the kernel choose among the sockets of the first n workers only.
func (s *sockets) direct(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, set := range s.open {
		if set.shared || set.steered {
			continue
		}
		first := set.listeners[0].(*net.TCPListener)
		if n < len(set.listeners) {
			errs = append(errs, reuseport.Limit(first, n))
		} else if err := reuseport.Detach(first); !errors.Is(err, syscall.ENOENT) { // there may have been none
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// surplus returns the sockets that n workers have no use for.
func (s *sockets) surplus(n int) map[loan]descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[loan]descriptor{}
	for e, set := range s.open {
		for i := n; i < len(set.listeners) && !set.shared; i++ {
			all[loan{e, i}] = set.listeners[i].(descriptor)
		}
	}
	return all
}

// of returns a worker's own sockets.
func (s *sockets) of(worker int) map[loan]descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[loan]descriptor{}
	for e, set := range s.open {
		if !set.shared && worker < len(set.listeners) {
			all[loan{e, worker}] = set.listeners[worker].(descriptor)
		}
	}
	return all
}

// shrink closes the sockets that n workers have no use for. Nothing may come to them any more, and the kernel goes on
// choosing among the others only, since a worker may still have a copy.
func (s *sockets) shrink(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range s.open {
		if set.shared {
			continue
		}
		for len(set.listeners) > n {
			last := len(set.listeners) - 1 // closing any other would renumber the kernel's group
			if tcp, ok := set.listeners[last].(*net.TCPListener); ok {
				// In the instant of the close the kernel may choose it all the same (seen with IPv4 on 6.18, see
				// BenchmarkLeave in reuseport). A SYN that is ignored then is sent again.
				reuseport.Quiesce(tcp) // without the right to it, that one connection is reset
			}
			set.listeners[last].Close()
			set.listeners = set.listeners[:last]
		}
	}
}

// keep closes the sockets of all endpoints but some.
func (s *sockets) keep(used map[endpoint]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e, set := range s.open {
		if !used[e] {
			set.close()
			delete(s.open, e)
		}
	}
}

// quiesce keeps new connections out of a worker's sockets, so that those that are queued can be served before
// the sockets are closed for good. The error says why connections may still come.
func (s *sockets) quiesce(worker int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, set := range s.open {
		if tcp, ok := set.listeners[worker%len(set.listeners)].(*net.TCPListener); ok {
			errs = append(errs, reuseport.Quiesce(tcp))
		}
		set.unlink()
	}
	return errors.Join(errs...)
}

// quiesceAll keeps new connections out of all sockets of an endpoint.
func (s *sockets) quiesceAll(e endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.open[e]
	if set == nil {
		return nil
	}
	var errs []error
	for _, l := range set.listeners {
		if tcp, ok := l.(*net.TCPListener); ok {
			errs = append(errs, reuseport.Quiesce(tcp))
		}
	}
	set.unlink()
	return errors.Join(errs...)
}

// bequeath describes the sockets, and returns copies of their descriptors.
func (s *sockets) bequeath(steering Steering) (all []socketState, files []*os.File, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e, set := range s.open {
		state := socketState{Endpoint: e, Shared: set.shared, Path: set.path, Inode: set.inode}
		for _, l := range set.listeners {
			f, err := l.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				return nil, files, fmt.Errorf("socket of %s: %w", e, err)
			}
			files = append(files, f)
			fd, err := inplace.Descriptor(f)
			if err != nil {
				return nil, files, err
			}
			state.Listeners = append(state.Listeners, fd)
		}
		if steering != nil && set.steered {
			f, err := steering.Bequeath(e.name())
			if err != nil {
				return nil, files, err
			}
			if f != nil {
				files = append(files, f)
				if state.Steering, err = inplace.Descriptor(f); err != nil {
					return nil, files, err
				}
			}
		}
		all = append(all, state)
	}
	return all, files, nil
}

// take takes over sockets.
func (s *sockets) take(all map[endpoint]*socketSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = all
}

// close closes the sockets, for good.
func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range s.open {
		set.close()
	}
	s.open, s.closed = nil, true
}

func (s *socketSet) close() {
	for _, l := range s.listeners {
		l.Close()
	}
	s.unlink()
}
