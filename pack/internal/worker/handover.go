package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// quiesce asks the master, which has more rights, to keep new connections out of this worker's sockets.
func (w *worker) quiesce() error {
	select {
	case <-w.quiesced: // nobody has asked
	default:
	}
	sent := w.control.post(wire.Message{Type: wire.Quiesce})
	limit := time.NewTimer(queueLimit)
	defer limit.Stop()
	for {
		select {
		case err := <-sent:
			if err != nil {
				return err
			}
			sent = nil
		case m := <-w.quiesced:
			if m.Error != "" {
				return errors.New(m.Error)
			}
			return nil
		case <-w.gone:
			return w.service.quiesceOwn()
		case <-limit.C:
			return errors.New("the master does not answer")
		}
	}
}

// closed tells the master that the sockets are closed. A worker that drains by itself has nobody to tell.
func (w *worker) closed() {
	if !w.control.isDraining() {
		return
	}
	if err := w.control.say(wire.Message{Type: wire.Closed}); err != nil && !w.isGone() {
		w.log.Error("the master cannot be told that the sockets are closed", "error", err)
	}
}

// end says the last.
func (w *worker) end(cut int) {
	switch {
	case w.control.isDraining():
		w.control.post(wire.Message{Type: wire.End, Cut: cut}) // if it does not arrive, the end itself does
	case cut > 0:
		w.log.Warn("connections were cut", "connections", cut)
	}
}

// handoverTries is how often it is tried to hand a connection over while too many descriptors are on their way. The
// first time it waits for a millisecond, and each time for twice as long.
const handoverTries = 10

// handover hands an idle connection over.
func (w *worker) handover(e wire.Endpoint, c syscall.Conn) error {
	m := wire.Message{Type: wire.Handover, Endpoint: &e}
	err := w.control.say(m, c)
	for i := 0; i < handoverTries && isShortage(err); i++ {
		time.Sleep(time.Millisecond << i)
		err = w.control.say(m, c)
	}
	if err != nil && !w.isGone() {
		w.lost.count(err)
	}
	return err
}

// arrive serves a connection that another worker handed over. If this one is draining itself by now, the
// connection goes on to the next.
func (w *worker) arrive(r *wire.Received) {
	if r.Lost {
		w.lost.count(errDescriptorLost)
		return
	}
	f := r.Files[0]
	r.Files = nil
	c, err := net.FileConn(f) // a copy
	if err != nil {
		w.lost.count(err)
		go f.Close() // which may take a while, if the peer does not read (SO_LINGER)
		return
	}
	f.Close()
	l := w.service.of(*r.Endpoint)
	if l != nil && l.serveBare != nil {
		go w.arriveBare(l, c)
		return
	}
	if l == nil || !l.movable {
		w.lost.count(fmt.Errorf("no server of this worker takes them for %s: is it one of another kind now?",
			r.Endpoint)) // one line for all
		go c.Close()
		return
	}
	if !l.push(c, nil) {
		go w.passOn(*r.Endpoint, c)
	}
}

// arriveBare serves a connection that was handed over beside a listener that wraps what it accepts.
func (w *worker) arriveBare(l *listener, c net.Conn) {
	if l.isClosing() || !l.serveBare(c) {
		w.passOn(l.endpoint, c)
	}
}

// passOn hands a connection over that was handed over to this worker.
func (w *worker) passOn(e wire.Endpoint, c net.Conn) {
	defer c.Close()
	if sc, ok := c.(syscall.Conn); ok {
		w.handover(e, sc)
	}
}

// endHandover hands no connections over any more, and says so when none is on its way.
func (w *worker) endHandover() {
	w.service.endHandover(context.Background())
	w.control.post(wire.Message{Type: wire.HandoverEnded})
}

// cover serves a socket that has no worker of its own, or one that hangs, or is about to go.
func (w *worker) cover(r *wire.Received) {
	e, number, drained := *r.Endpoint, r.Socket, r.Type == wire.DrainSocket
	answer := func(err error) {
		m := wire.Message{Type: wire.Drained, Endpoint: &e, Socket: number}
		if err != nil {
			m.Type, m.Error = wire.Covered, err.Error()
		}
		select {
		case err := <-w.control.post(m):
			if err != nil { // at once
				w.log.Debug("the master cannot be told of a socket",
					"endpoint", e.String(), "socket", number, "error", err)
			}
		default:
		}
	}
	if r.Lost {
		answer(errDescriptorLost)
		return
	}
	l, err := fileListener(r.Files[0]) // a copy
	if err == nil {
		err = w.service.cover(e, number, drained, l, answer)
	}
	if err != nil {
		answer(err)
	}
}

// loss is how many connections were lost on their way from one worker to another. Its methods are safe for concurrent
// use.
type loss struct {
	n    atomic.Int64
	felt shortage
}

func newLoss(log *slog.Logger) *loss {
	l := &loss{}
	l.felt.begins = func(err error) {
		log.Warn("connections are lost that were handed over to another worker", "error", err)
	}
	l.felt.ends = func(time.Duration) {
		log.Info("connections were lost that were handed over to another worker", "connections", l.n.Swap(0))
	}
	return l
}

// count notes that a connection was lost.
func (l *loss) count(err error) {
	l.n.Add(1)
	l.felt.feel(err)
}

// end ends the counting.
func (l *loss) end() {
	l.felt.calmed()
	l.felt.forget()
}
