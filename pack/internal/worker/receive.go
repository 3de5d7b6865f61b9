package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// receiveTries is how often in a row receiving may fail until the control socket counts as of no use.
const receiveTries = 10

// receiveAll deals with what the master says until the end of the control socket. Nothing that it calls blocks, so that
// a Ping is answered, and a Drain heard, whatever else is under way.
func (w *worker) receiveAll(serving context.Context) {
	defer close(w.received)
	go w.reopenAll()
	defer close(w.reopen)
	for failures := 0; ; {
		r, err := w.control.conn.Receive()
		switch {
		case err == nil:
			failures = 0
			w.handle(serving, &r)
			r.Close()
		case wire.Interrupted(err):
			return
		case wire.Gone(err):
			w.masterGone(fmt.Errorf("%w: %w", errMasterGone, err))
			return
		case isWhole(&r, err):
			w.complain(err)
		default:
			failures++
			w.log.Error("what the master says cannot be received", "error", err)
			if _, local := errors.AsType[*net.OpError](err); !local || failures == receiveTries {
				w.masterGone(fmt.Errorf("the control socket is of no use: %w", err))
				return
			}
			time.Sleep(time.Duration(failures) * 10 * time.Millisecond)
		}
	}
}

// isWhole reports whether a message was received as a whole that made no sense: the next one may.
func isWhole(r *wire.Received, err error) bool {
	_, syntax := errors.AsType[*json.SyntaxError](err) // of an empty one
	return r.Size > 0 || syntax
}

// complain logs, once, that the master says what cannot be understood.
func (w *worker) complain(err error) {
	if !w.odd {
		w.log.Error("the master says what this worker does not understand", "error", err)
	}
	w.odd = true
}

// handle does what a message asks for.
func (w *worker) handle(serving context.Context, r *wire.Received) {
	if err := checkFromMaster(r); err != nil {
		w.complain(err)
		return
	}
	switch r.Type {
	case wire.Tickets:
		w.Tickets.set(r.Keys)
	case wire.Socket, wire.Refused:
		w.answered(r)
	case wire.Drain:
		w.control.drains()
		w.drained(&order{why: errTold, final: r.Final, handOver: r.HandOver, unserved: r.Unserved})
	case wire.Quiesced:
		select {
		case w.quiesced <- r.Message:
		default:
		}
	case wire.Handover:
		w.arrive(r)
	case wire.EndHandover:
		go w.endHandover()
	case wire.Cover, wire.DrainSocket:
		w.cover(r)
	case wire.Uncover:
		w.service.uncover(*r.Endpoint, r.Socket)
	case wire.Board:
		w.board(serving, r)
	case wire.Tally:
		w.tally(r)
	case wire.Shed:
		go w.service.shed(r.Conns)
	case wire.Ping:
		w.control.post(w.vitals())
	case wire.Reopen:
		select {
		case w.reopen <- struct{}{}:
		default: // it will be called after this, too
		}
	case wire.Stacks:
		go writeStacks(w.ID)
	default: // a master of another version may say more
		w.log.Debug("the master says what this worker does not know", "type", fmt.Sprintf("%.40q", r.Type))
	}
}

// checkFromMaster reports whether something is missing from a message.
func checkFromMaster(r *wire.Received) error {
	files := 0
	switch r.Type {
	case wire.Handover, wire.Cover, wire.DrainSocket:
		files = 1
		fallthrough
	case wire.Uncover:
		if r.Endpoint == nil {
			return fmt.Errorf("%s without an endpoint", r.Type)
		}
	case wire.Board, wire.Tally:
		files = 1
	case wire.Socket:
		return nil // see socket
	}
	if len(r.Files) != files && !r.Lost {
		return fmt.Errorf("%s with %d descriptors: there must be %d", r.Type, len(r.Files), files)
	}
	return nil
}

// masterGone has the worker drain by itself.
func (w *worker) masterGone(why error) {
	close(w.gone)
	if w.OnOrphaned != nil {
		w.OnOrphaned()
	}
	time.AfterFunc(w.ShutdownTimeout, func() { // there is no master that would
		w.log.Error("the master is gone, and this worker has not ended in time: exiting", "timeout", w.ShutdownTimeout)
		w.lines.Flush()
		w.exit(1)
	})
	w.drained(&order{why: why, final: true, masterGone: true})
	go w.service.endHandover(context.Background()) // if it drains already
}

func (w *worker) isGone() bool {
	select {
	case <-w.gone:
		return true
	default:
		return false
	}
}

// reopenAll has log files opened anew when that is asked for, once at a time.
func (w *worker) reopenAll() {
	for range w.reopen {
		if w.OnReopen != nil {
			w.OnReopen()
		}
	}
}

// board has the reporter report to the steering where the master says.
func (w *worker) board(serving context.Context, r *wire.Received) {
	w.report(r, func() error { return w.service.reporter.reportIn(serving, r.Files[0], r.Slot) })
}

// tally has it report to the master.
func (w *worker) tally(r *wire.Received) {
	w.report(r, func() error { return w.service.reporter.tallyIn(r.Files[0]) })
}

func (w *worker) report(r *wire.Received, where func() error) {
	err := error(errDescriptorLost)
	if !r.Lost {
		err = where()
	}
	if err != nil {
		w.log.Debug("this worker cannot report what it has to do", "error", err)
	}
}

// errDescriptorLost is why something that the master sent is of no use.
var errDescriptorLost = errors.New(
	"the descriptor was lost, since this process has too many open files; raise the limit of open files")

// answered passes the answer to Listen on, with its descriptor.
func (w *worker) answered(r *wire.Received) {
	if !w.asked.CompareAndSwap(true, false) {
		w.complain(fmt.Errorf("%s without a request", r.Type))
		return
	}
	w.answers <- *r // has room for it
	r.Files = nil   // the receiver's now
}

// socket asks the master for this worker's socket of an endpoint.
func (w *worker) socket(ctx context.Context, e wire.Endpoint, defers bool) (io.Closer, error) {
	w.asked.Store(true)
	if err := w.control.say(wire.Message{Type: wire.Listen, Endpoint: &e, Defer: defers}); err != nil {
		w.asked.Store(false)
		return nil, fmt.Errorf("ask the master for %s: %w", e, err)
	}
	select {
	case r := <-w.answers:
		defer r.Close() // package net makes a copy
		switch {
		case r.Type == wire.Refused:
			return nil, errors.New(r.Error)
		case r.Lost:
			return nil, fmt.Errorf("the socket of %s: %w", e, errDescriptorLost)
		case len(r.Files) != 1:
			return nil, fmt.Errorf("the master sent %d descriptors for %s", len(r.Files), e)
		}
		w.service.stays.Store(e, stay{kept: r.Kept, given: r.Given})
		if e.IsPacket() {
			conn, err := net.FilePacketConn(r.Files[0])
			if err != nil || !e.QUIC {
				return conn, err
			}
			if len(r.Keys) != 1 {
				conn.Close()
				return nil, fmt.Errorf("the master sent %d secrets for %s", len(r.Keys), e)
			}
			return QUICSocket{conn, QUIC{r.Slot, r.Keys[0]}}, nil
		}
		return fileListener(r.Files[0])
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fileListener returns a listener of a copy of a file.
func fileListener(f *os.File) (net.Listener, error) {
	l, err := net.FileListener(f)
	if isShortage(err) {
		err = fmt.Errorf("%w; raise the limit of open files", err)
	}
	if tcp, ok := l.(*net.TCPListener); ok {
		inheritKeepAlive(tcp)
	}
	return l, err
}
