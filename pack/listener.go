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
	accepted func() // called for each connection

	accepting chan struct{} // closed when Accept is first called
	once      sync.Once

	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	closeErr  error
	shortage  shortage
	emptied   atomic.Bool  // it was closed because it was finished
	finishing atomic.Int64 // how long, in nanoseconds, the queue must stay empty; 0 if not finishing
}

func newListener(l net.Listener, e endpoint, log *slog.Logger, accepted func()) *listener {
	return &listener{Listener: l, endpoint: e, log: log, accepted: accepted, accepting: make(chan struct{}), closing: make(chan struct{})}
}

// Accept waits for the next connection. It returns an error only when the listener is closed or finished, or
// broken for good.
func (l *listener) Accept() (net.Conn, error) {
	l.once.Do(func() { close(l.accepting) })
	waited := false
	for {
		c, err := l.Listener.Accept()
		switch {
		case err == nil:
			if waited {
				l.shortage.relax()
			}
			l.accepted()
			return c, nil
		case l.closed():
			return nil, net.ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded) && l.finishing.Load() != 0:
			if !readable(l.Listener) {
				l.emptied.Store(true)
				l.Close()
				return nil, net.ErrClosed
			}
			l.extend()
		case isShortage(err):
			waited = true
			l.waitForMore(err)
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
		l.shortage.forget()
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

// shortage is a time in which connections cannot always be accepted for want of descriptors or memory. They stay in
// the queue meanwhile. At the limit, each connection that is closed lets one more in, so a shortage is over only when
// it has not been felt for a while: one line in the log when it begins, one when it ends.
type shortage struct {
	mu    sync.Mutex
	since time.Time     // zero if there is none
	delay time.Duration // before the next try
	calm  *time.Timer   // ends it
}

const (
	shortageMin  = 5 * time.Millisecond
	shortageMax  = time.Second
	shortageCalm = 2 * shortageMax
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

// waitForMore logs that a shortage begins, and waits a while: longer each time, and not longer than until the
// listener is closed.
func (l *listener) waitForMore(err error) {
	timer := time.NewTimer(l.feel(err))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.closing:
	}
}

// feel notes that connections cannot be accepted now, and returns when to try again.
func (l *listener) feel(err error) time.Duration {
	s := &l.shortage
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		s.since = time.Now()
		l.log.Warn("cannot accept connections, they wait in the queue; raise the limit of open files, or look for a leak",
			"endpoint", l.endpoint.String(), "error", err)
	}
	if s.calm == nil {
		s.calm = time.AfterFunc(shortageCalm, l.calmed)
	} else {
		s.calm.Reset(shortageCalm)
	}
	s.delay = min(max(2*s.delay, shortageMin), shortageMax)
	return s.delay
}

// calmed logs that a shortage has ended.
func (l *listener) calmed() {
	s := &l.shortage
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return
	}
	l.log.Info("accepting connections again", "endpoint", l.endpoint.String(),
		"after", (time.Since(s.since) - shortageCalm).Round(time.Millisecond))
	s.since = time.Time{}
}

// relax makes the next delay a short one.
func (s *shortage) relax() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = 0
}

// forget ends a shortage without a word.
func (s *shortage) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Time{}
	if s.calm != nil {
		s.calm.Stop()
	}
}
