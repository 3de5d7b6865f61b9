package worker

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// control is this worker's end of the control socket. It sends in the order of the calls, from a goroutine of its own,
// and nothing that the rules of package wire forbid, for which the master would kill this worker.
type control struct {
	conn *wire.Conn
	done chan struct{} // closed when the last is sent

	mu      sync.Mutex
	changed sync.Cond          // of outbox and closed
	state   wire.State         // as the master will know it when it has read what was said
	said    map[wire.Type]bool // so far
	outbox  []*letter          // to be sent
	err     error              // why nothing can be sent any more
	closed  bool
}

// letter is a message that is to be sent.
type letter struct {
	wire.Message
	files []syscall.Conn
	sent  chan error // told once
}

// errEnded is why nothing is sent after End.
var errEnded = errors.New("the worker has said its last")

func newControl(conn *wire.Conn) *control {
	c := &control{conn: conn, done: make(chan struct{}), said: map[wire.Type]bool{}}
	c.changed.L = &c.mu
	go c.sendAll()
	return c
}

// post has a message sent, and tells the channel what came of it. It does not wait. The files must stay open until
// then.
func (c *control) post(m wire.Message, files ...syscall.Conn) <-chan error {
	l := &letter{Message: clipped(m), files: files, sent: make(chan error, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.mayPost(l); err != nil {
		l.sent <- err
		return l.sent
	}
	c.note(m.Type)
	if m.Type == wire.Beat {
		for _, waiting := range c.outbox {
			if waiting.Type == wire.Beat { // the master reads slowly; this news is better
				waiting.Message = l.Message
				l.sent <- nil
				return l.sent
			}
		}
	}
	c.outbox = append(c.outbox, l)
	c.changed.Signal()
	return l.sent
}

// say sends a message, and waits until it is sent.
func (c *control) say(m wire.Message, files ...syscall.Conn) error { return <-c.post(m, files...) }

// mayPost reports why a message is not to be sent. It is called with mu locked.
func (c *control) mayPost(l *letter) error {
	if c.err != nil {
		return c.err
	}
	body, err := wire.Encode(l.Message)
	if err != nil {
		return err
	}
	if err := l.CheckFromWorker(len(body), len(l.files), false); err != nil {
		return err
	}
	return wire.MaySend(l.Type, c.state, c.said)
}

// note notes that a message is said. It is called with mu locked.
func (c *control) note(t wire.Type) {
	c.said[t] = true
	switch t {
	case wire.Hello:
		c.state = max(c.state, wire.Starting)
	case wire.Ready:
		c.state = max(c.state, wire.Serving)
	case wire.Closed:
		c.state = max(c.state, wire.Closing)
	case wire.End:
		c.err = errEnded
	}
}

// clipped returns a message with texts no longer than may be sent.
func clipped(m wire.Message) wire.Message {
	m.Error = wire.Clip(m.Error)
	if m.Vitals != nil {
		v := *m.Vitals
		v.Probe = wire.Clip(v.Probe)
		m.Vitals = &v
	}
	return m
}

// drains notes that the master has said Drain.
func (c *control) drains() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = max(c.state, wire.Draining)
}

// isDraining reports whether the master has said Drain.
func (c *control) isDraining() bool { return c.now() >= wire.Draining }

// isServing reports whether the worker is ready, and the master has not said Drain.
func (c *control) isServing() bool { return c.now() == wire.Serving }

func (c *control) now() wire.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// sendAll sends what is posted, until close is called and all of it is sent.
func (c *control) sendAll() {
	defer close(c.done)
	for {
		l, err := c.next()
		if l == nil {
			return
		}
		if err == nil {
			err = c.send(l)
		}
		l.sent <- err
	}
}

// next waits for the next message, and returns nil if there will be none, and why it cannot be sent.
func (c *control) next() (l *letter, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.outbox) == 0 {
		if c.closed {
			return nil, nil
		}
		c.changed.Wait()
	}
	l, c.outbox = c.outbox[0], c.outbox[1:]
	if c.err != nil && !errors.Is(c.err, errEnded) {
		err = c.err
	}
	return l, err
}

// send sends a message. One with a descriptor, which is small, is sent as a whole or not at all, and may be tried again
// if too many descriptors are on their way (unix(7), ETOOMANYREFS). Any other failure is the end.
func (c *control) send(l *letter) error {
	err := c.conn.Send(l.Message, l.files...)
	if err == nil || len(l.files) > 0 && isShortage(err) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil || errors.Is(c.err, errEnded) {
		c.err = err
	}
	return err
}

// closeTimeout is how long the master may take to read the last messages.
const closeTimeout = 5 * time.Second

// close ends the connection, when all is sent. Nothing can be posted any more.
func (c *control) close() {
	c.mu.Lock()
	c.closed = true
	if c.err == nil {
		c.err = errEnded
	}
	c.changed.Signal()
	c.mu.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	<-c.done
	c.conn.Close()
}
