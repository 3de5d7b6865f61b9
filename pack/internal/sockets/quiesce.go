package sockets

import (
	"errors"
	"fmt"
	"net"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

// QuiesceFinal keeps new connections out of worker i's sockets for good, in a stop, so that those that are queued can
// be served before the sockets are closed. That goes for sockets that workers share, too: files of Unix sockets are
// removed, and Unix sockets without a file, or whose file cannot be removed, refuse connections on Linux. From then on
// poll(2) says POLLIN and POLLRDHUP of such a socket even if nothing is queued; only accept(2) tells, by EAGAIN. The
// error says why connections may still come: see [reuseport.Quiesce].
func (k *Keeper) QuiesceFinal(i int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, e := range k.endpoints() {
		s := k.open[e]
		if i < 0 || e.QUIC || !s.shared && i >= len(s.listeners) { // its connections go on by the same socket
			continue
		}
		if err := s.quiesceFinal(s.listeners[i%len(s.listeners)]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e, err))
		}
	}
	return errors.Join(errs...)
}

func (s *set) quiesceFinal(l socket) error {
	if s.final == nil {
		s.final = map[socket]bool{}
	}
	s.final[l] = true
	if s.isGiven(l) {
		return errors.Join(errGiven, s.leave())
	} else if s.given != "" {
		return s.leave()
	}
	if isUnix(l) {
		var err error
		if s.file != nil {
			if err = s.file.remove(); err == nil {
				return nil
			}
		}
		if serr := shutdown(l); serr != nil {
			return errors.Join(err, serr)
		}
		return nil
	}
	return reuseport.Quiesce(l)
}

// Refuse has a listening Unix socket refuse new connections, in all processes that have it. What is queued can be
// accepted. Only Linux can.
func Refuse(l *net.UnixListener) error { return shutdown(l) }

// QuiesceEndpoint keeps new connections out of all sockets of an endpoint, if it is open, until [Keeper.Copy] lets them
// in again. The file of a Unix socket is moved to another name meanwhile.
func (k *Keeper) QuiesceEndpoint(e wire.Endpoint) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.open[e]
	if s == nil || e.QUIC {
		return nil
	}
	var errs []error
	for _, l := range s.listeners {
		if s.given != "" {
			errs = append(errs, errGiven)
		} else if isReplaced(e) { // its file may have another name now
			errs = append(errs, shutdown(l))
		} else {
			errs = append(errs, s.quiesce(l))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", e, err)
	}
	return nil
}

func (s *set) quiesce(l socket) error {
	if s.file != nil {
		return s.file.hide()
	}
	if isUnix(l) {
		return fmt.Errorf("a Unix socket without a file can only be closed: %w", errors.ErrUnsupported)
	}
	return reuseport.Quiesce(l)
}

// resume lets new connections in again.
func (s *set) resume(l socket) error {
	switch {
	case !listensAgain(l):
		return errors.New("the socket does not listen there any more, a process has shut it down: start the pack anew")
	case s.file != nil:
		return s.file.show()
	case isUnix(l):
		return nil
	}
	// A worker may have kept them out by itself, so what was done here does not tell. Where it fails there was no filter,
	// or a worker has locked the socket against changes of it (SO_LOCK_FILTER). Whoever can lock one in can do worse.
	reuseport.Resume(l)
	return nil
}
