package worker

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// listener is what a server accepts from: the worker's own socket of an endpoint, and what comes from elsewhere, which
// is other workers' sockets (see source), and connections that were handed over.
//
// Connections of its own socket take the direct way: Accept waits in that socket. What comes from elsewhere is queued,
// and breaks off that wait by a deadline in the past. So the deadline of the own socket depends on the state, and is
// set, with mu locked, whenever that changes: in the past while something is queued; when the queue of the socket was
// found empty for long enough, if the listener is being finished; else none.
//
// Accept survives a lack of descriptors or memory.
type listener struct {
	net.Listener // the worker's own socket
	endpoint     wire.Endpoint
	log          *slog.Logger
	accepted     func(own bool) // called for each connection of a socket
	server       drain.Server
	movable      bool // its connections can be handed over, and others' to it

	// serveBare serves a connection that was handed over by a worker that did not wrap it, where this one does, and
	// reports whether it could; nil if that cannot be.
	serveBare func(net.Conn) bool

	accepting chan struct{} // closed when Accept is first called
	once      sync.Once
	closing   chan struct{} // closed by Close
	wake      chan struct{} // tells an Accept that waits for descriptors that something is queued
	told      atomic.Bool   // the worker wants its end
	shortage  shortage
	finishing atomic.Bool
	last      atomic.Int64 // if finishing: when the own socket had a connection, in nanoseconds of the clock

	mu       sync.Mutex
	changed  sync.Cond // of queue and running, when it is closed
	queue    []arrived
	sources  map[int]*source // by the number of the socket
	answers  sync.WaitGroup  // of sources
	running  int             // sources that have not ended, those included that sources knows no more
	empty    time.Duration   // for how long the queue of a socket must be empty to be finished
	isClosed bool
	over     bool // Accept will not be called any more
	closeErr error
}

func newListener(own net.Listener, e wire.Endpoint, log *slog.Logger, accepted func(own bool)) *listener {
	l := &listener{
		Listener: own, endpoint: e, log: log, accepted: accepted, sources: map[int]*source{},
		accepting: make(chan struct{}), closing: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	l.changed.L = &l.mu
	l.shortage = shortage{
		begins: func(err error) {
			log.Warn("cannot accept connections, they wait in the queue; raise the limit of open files, or look for "+
				"a leak", "endpoint", e.String(), "error", err)
		},
		ends: func(after time.Duration) {
			log.Info("accepting connections again", "endpoint", e.String(), "after", after.Round(time.Millisecond))
		},
	}
	return l
}

// exposed returns the listener with the methods that its socket has.
func (l *listener) exposed() net.Listener {
	if sc, ok := l.Listener.(syscall.Conn); ok {
		return exposedListener{l, sc}
	}
	return l
}

// exposedListener lets servers set options of the socket.
type exposedListener struct {
	*listener
	syscall.Conn
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
			if l.finishing.Load() {
				l.last.Store(time.Now().UnixNano())
			}
			l.accepted(true)
			return c, nil
		case errors.Is(err, os.ErrDeadlineExceeded), l.isClosing():
			if c, err := l.fromElsewhere(); c != nil || err != nil {
				return c, err
			}
		case isShortage(err):
			waited = true
			l.shortage.wait(err, l.closing, l.wake)
		case isAbort(err):
		default:
			return nil, err
		}
	}
}

// fromElsewhere returns a connection from elsewhere, or an error if that is the end, or neither.
func (l *listener) fromElsewhere() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if len(l.queue) > 0 {
			c := l.queue[0]
			l.queue[0] = arrived{}
			l.queue = l.queue[1:]
			c.from.taken()
			l.arm()
			if c.from == nil && l.movable {
				return drain.Arrived(c.Conn), nil
			}
			return c.Conn, nil
		}
		switch {
		case l.isClosed && l.running == 0:
			return nil, net.ErrClosed
		case l.isClosed:
			l.changed.Wait() // a source may just have accepted a connection
		case l.isQuiet():
			c, waits := waiting(l.Listener)
			if c == nil && !waits {
				l.close(nil)
				continue
			}
			if c != nil {
				l.last.Store(time.Now().UnixNano())
				l.accepted(true)
			}
			l.arm()
			return c, nil
		default:
			l.arm()
			return nil, nil
		}
	}
}

// arm sets the deadline of the own socket. It is called with mu locked.
func (l *listener) arm() {
	d, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	switch {
	case !ok || l.isClosed:
	case len(l.queue) > 0:
		d.SetDeadline(time.Unix(1, 0))
		select {
		case l.wake <- struct{}{}:
		default:
		}
	case l.finishing.Load():
		d.SetDeadline(time.Now().Add(l.empty))
	default:
		d.SetDeadline(time.Time{})
	}
}

// isQuiet reports whether the listener is being finished, and nothing has come for long enough. It is called with mu
// locked.
func (l *listener) isQuiet() bool {
	quiet := time.Duration(time.Now().UnixNano() - l.last.Load())
	return l.finishing.Load() && l.running == 0 && quiet >= l.empty
}

// finish has the listener close once nothing has come to its sockets for the given time, which must not be 0, and its
// queue is empty. It does not wait for that; Accept returns an error then.
func (l *listener) finish(empty time.Duration) {
	l.told.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.empty = empty
	l.last.Store(time.Now().UnixNano())
	l.finishing.Store(true)
	for _, s := range l.sources {
		s.finish(empty)
	}
	l.arm()
}

// stop closes the listener for the worker. What is queued here is accepted before Accept returns an error. why is told
// to the master about other workers' sockets, which is nil if it knows.
func (l *listener) stop(why error) {
	l.told.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close(why)
}

// Close closes this worker's copy of the socket, and those of the sources. What is queued there stays queued if the
// master has copies.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close(errStopped)
	return l.closeErr
}

var errStopped = errors.New("this worker stopped serving it")

// close is called with mu locked.
func (l *listener) close(why error) {
	if l.isClosed {
		return
	}
	l.isClosed = true
	close(l.closing)
	l.shortage.forget()
	l.closeErr = l.Listener.Close()
	for _, s := range l.sources {
		if why == nil && s.drain {
			s.stop(errStopped)
		} else {
			s.stop(why)
		}
	}
	l.changed.Broadcast()
}

func (l *listener) isClosing() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}
