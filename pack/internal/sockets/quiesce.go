package sockets

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

// Quiesce keeps new connections out of worker i's own sockets, so that those that are queued can be served before the
// sockets are closed. A socket that workers share stays open to all, as others serve it. The error says why
// connections may still come: see [reuseport.Quiesce].
func (k *Keeper) Quiesce(i int) error {
	return k.each(i, func(s *set, l net.Listener) error {
		if s.shared {
			return nil
		}
		return reuseport.Quiesce(l.(syscall.Conn))
	})
}

// QuiesceFinal is Quiesce in a stop, when nobody goes on, and for good. It keeps new connections out of shared
// sockets, too: files of Unix sockets are removed, and Unix sockets without a file refuse connections, on Linux, where
// they are. From then on poll(2) says POLLIN and POLLRDHUP of such a socket even if nothing is queued; only accept(2)
// tells, by EAGAIN.
func (k *Keeper) QuiesceFinal(i int) error {
	return k.each(i, func(s *set, l net.Listener) error {
		if s.final == nil {
			s.final = map[net.Listener]bool{}
		}
		s.final[l] = true
		if s.file != nil {
			s.file.remove()
			return nil
		}
		if _, ok := l.(*net.UnixListener); ok {
			return shutdown(l.(syscall.Conn))
		}
		return reuseport.Quiesce(l.(syscall.Conn))
	})
}

// Resume undoes [Keeper.Quiesce], and what a worker has done to the same end.
func (k *Keeper) Resume(i int) error {
	return k.each(i, func(s *set, l net.Listener) error {
		if s.shared {
			return nil
		}
		return s.resume(l)
	})
}

// each calls f with worker i's socket of each endpoint.
func (k *Keeper) each(i int, f func(*set, net.Listener) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, e := range k.endpoints() {
		s := k.open[e]
		if i < 0 || !s.shared && i >= len(s.listeners) {
			continue
		}
		if err := f(s, s.listeners[i%len(s.listeners)]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e, err))
		}
	}
	return errors.Join(errs...)
}

// QuiesceEndpoint keeps new connections out of all sockets of an endpoint. The file of a Unix socket is moved to
// another name, where [Keeper.ResumeEndpoint] finds it.
func (k *Keeper) QuiesceEndpoint(e wire.Endpoint) error {
	return k.all(e, func(s *set, l net.Listener) error {
		switch {
		case s.file != nil:
			return s.file.hide()
		case e.Network == "unix":
			return fmt.Errorf("a Unix socket without a file can only be closed: %w", errors.ErrUnsupported)
		}
		return reuseport.Quiesce(l.(syscall.Conn))
	})
}

// ResumeEndpoint undoes [Keeper.QuiesceEndpoint].
func (k *Keeper) ResumeEndpoint(e wire.Endpoint) error { return k.all(e, (*set).resume) }

// all calls f with each socket of an endpoint, if it is open.
func (k *Keeper) all(e wire.Endpoint, f func(*set, net.Listener) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.open[e]
	if s == nil {
		return nil
	}
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, f(s, l))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", e, err)
	}
	return nil
}

// resume lets new connections in again.
func (s *set) resume(l net.Listener) error {
	switch {
	case s.final[l]:
		return errors.New("new connections are kept out for good")
	case !listensAgain(l):
		return errors.New("the socket does not listen there any more, a process has shut it down: start the pack anew")
	case s.file != nil:
		return s.file.show()
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil
	}
	// A worker may have kept them out by itself, so what was done here does not tell. Where it fails there was no filter,
	// or a worker has locked the socket against changes of it (SO_LOCK_FILTER). Whoever can lock one in can do worse.
	reuseport.Resume(tcp)
	return nil
}
