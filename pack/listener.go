package pack

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// listener is the socket of a worker, as its server sees it. Accept survives a lack of descriptors or memory,
// and the listener can be finished: closed once its queue is empty.
type listener struct {
	net.Listener
	endpoint endpoint
	log      *slog.Logger

	accepting chan struct{} // closed when Accept is first called
	once      sync.Once

	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	closeErr  error
	finishing atomic.Int64 // how long, in nanoseconds, the queue must stay empty; 0 if not finishing
}

func newListener(l net.Listener, e endpoint, log *slog.Logger) *listener {
	return &listener{Listener: l, endpoint: e, log: log, accepting: make(chan struct{}), closing: make(chan struct{})}
}

// Accept waits for the next connection. It returns an error only when the listener is closed or finished, or
// broken for good.
func (l *listener) Accept() (net.Conn, error) {
	l.once.Do(func() { close(l.accepting) })
	var shortage shortage
	for {
		c, err := l.Listener.Accept()
		switch {
		case err == nil:
			shortage.over(l)
			return c, nil
		case l.closed():
			return nil, net.ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded) && l.finishing.Load() != 0:
			if !readable(l.Listener) {
				l.Close()
				return nil, net.ErrClosed
			}
			l.extend()
		case isShortage(err):
			shortage.wait(l, err)
		case errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.EINTR):
		default:
			return nil, err
		}
	}
}

// finish closes the listener once nothing has been queued on it for the given time, which must not be 0. It
// does not wait for that; Accept returns an error then.
func (l *listener) finish(empty time.Duration) {
	l.finishing.Store(int64(empty))
	l.extend()
}

// extend lets Accept return when the queue stays empty.
func (l *listener) extend() {
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		d.SetDeadline(time.Now().Add(time.Duration(l.finishing.Load())))
	}
}

// Close closes this worker's copy of the socket, once. What is queued stays queued if the master has a copy.
func (l *listener) Close() error {
	l.closeOnce.Do(func() {
		close(l.closing)
		l.closeErr = l.Listener.Close()
	})
	return l.closeErr
}

func (l *listener) closed() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// shortage is a time in which connections cannot be accepted for want of descriptors or memory. They stay in
// the queue meanwhile.
type shortage struct {
	since time.Time
	delay time.Duration
}

const (
	shortageMin = 5 * time.Millisecond
	shortageMax = time.Second
)

// isShortage reports whether accept(2) may succeed later, when something else was closed.
func isShortage(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// wait logs the beginning, and waits a while: longer each time, and not longer than until the listener is closed.
func (s *shortage) wait(l *listener, err error) {
	if s.since.IsZero() {
		s.since, s.delay = time.Now(), shortageMin
		l.log.Warn("cannot accept connections, they wait in the queue; raise the limit of open files, or look for a leak",
			"endpoint", l.endpoint.String(), "error", err)
	}
	timer := time.NewTimer(s.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.closing:
	}
	s.delay = min(2*s.delay, shortageMax)
}

// over logs the end.
func (s *shortage) over(l *listener) {
	if !s.since.IsZero() {
		l.log.Info("accepting connections again", "endpoint", l.endpoint.String(), "after", time.Since(s.since).Round(time.Millisecond))
	}
}
