package worker

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/sockets"
)

// source is another worker's socket of an endpoint, from which a listener gets connections, too: to cover for that
// worker, until it is told to stop, or to drain the socket, until nobody connects any more. It accepts one connection
// at a time, so that others wait in the queue of the socket for whoever takes them first.
type source struct {
	net.Listener
	number int
	into   *listener
	drain  bool
	answer func(error) // told what came of it; nil if the socket is drained

	next     chan struct{} // told when the server has taken a connection
	empty    atomic.Int64  // in nanoseconds, for how long the queue must be empty to be finished; 0 if it is not to be
	stopping chan struct{}
	once     sync.Once
	why      error // it was stopped
}

// serve has a listener accept from another's socket, which it closes, too. answer is told, if the socket is to be
// drained, that it is or why it cannot be; otherwise if it cannot be served any more. If the listener accepts from the
// socket already, this is in its place.
func (l *listener) serve(socket net.Listener, number int, drain bool, answer func(error)) error {
	s := &source{
		Listener: socket, number: number, into: l, drain: drain, answer: answer,
		next: make(chan struct{}, 1), stopping: make(chan struct{}),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed || l.over {
		socket.Close()
		return errStopped
	}
	l.sources[number].stop(nil)
	l.sources[number] = s
	l.running++
	l.answers.Go(s.run)
	switch {
	case l.finishing.Load():
		s.finish(l.empty)
	case drain:
		s.finish(drainEmpty)
	}
	return nil
}

// unserve has the listener not accept from another's socket any more, which is closed.
func (l *listener) unserve(number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sources[number].stop(nil)
	delete(l.sources, number)
}

// covers reports whether it serves sockets of others.
func (l *listener) covers() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sources) > 0
}

// drainEmpty is how long nobody must have connected to a socket that is drained: longer than a handshake takes that
// began before the kernel was told to choose other sockets, also where it lets clients in only when they have spoken.
const drainEmpty = sockets.ComesWithin

// taken has the source accept the next connection.
func (s *source) taken() {
	if s == nil {
		return
	}
	select {
	case s.next <- struct{}{}:
	default:
	}
}

// finish has the source end once nothing has come for the given time.
func (s *source) finish(empty time.Duration) {
	s.empty.Store(int64(empty))
	s.await(empty)
}

// await lets Accept return when nothing has come for the given time.
func (s *source) await(d time.Duration) {
	if l, ok := s.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		l.SetDeadline(time.Now().Add(d))
	}
}

// stop ends the source, once. why is the answer, unless it is nil and the socket is only covered.
func (s *source) stop(why error) {
	if s == nil {
		return
	}
	s.once.Do(func() {
		s.why = why
		close(s.stopping)
		s.Listener.Close()
	})
}

func (s *source) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// run accepts until the end of the source.
func (s *source) run() {
	err := s.acceptAll()
	s.stop(err)
	if s.into.ended(s) && (s.why != nil || s.drain) {
		s.answer(s.why)
	}
}

// acceptAll returns nil if the source is stopped, or nothing comes to it any more.
func (s *source) acceptAll() error {
	waited := false
	last := time.Now()
	for {
		c, err := s.Accept()
		switch {
		case err == nil:
			if waited {
				s.into.shortage.relax()
			}
			last = time.Now()
			s.into.accepted(false)
			if !s.into.push(c, s) {
				c.Close() // the server does not accept any more
				return errStopped
			}
			select {
			case <-s.next:
			case <-s.stopping:
				return nil
			}
			if empty := s.empty.Load(); empty != 0 {
				s.await(time.Duration(empty))
			}
		case s.isStopping():
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			empty := time.Duration(s.empty.Load())
			if time.Since(last) >= empty && !readable(s.Listener) {
				return nil
			}
			s.await(empty)
		case isShortage(err):
			waited = true
			s.into.shortage.wait(err, s.stopping, nil)
		case isAbort(err):
		default:
			return err
		}
	}
}

// ended notes that a source accepts no more, and has closed its copy. It reports whether an answer is waited for: not
// if another is in its place, or it was told to end.
func (l *listener) ended(s *source) (current bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if current = l.sources[s.number] == s; current {
		delete(l.sources, s.number)
	}
	l.running--
	l.changed.Broadcast()
	return current
}
