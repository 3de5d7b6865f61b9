package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/reuseport"
	"github.com/gopherpack/gopherpack/sigctl"
)

// errMasterGone is why a worker stops when its control socket ends.
var errMasterGone = errors.New("the master is gone")

// stopRequest is why, and how, a worker is to stop.
type stopRequest struct {
	why   error
	final bool // nobody takes over the sockets
	hand  bool // somebody takes idle connections

	unserved []endpoint // whose sockets nobody takes over, although it is not final
}

func (r *stopRequest) Error() string { return r.why.Error() }

// workerState is a worker's side of the control socket.
type workerState struct {
	link
	id      int
	answers chan answer  // to the requests for sockets, in order
	quiet   chan message // the answer to msgLast
	stop    context.CancelCauseFunc
}

type answer struct {
	message
	files []*os.File
}

func (p *Pack) runWorker(ctx context.Context, r role) error {
	if r.err != nil {
		return r.err
	}
	defer r.lifeline.Close()
	log := p.config.Logger.With("worker", r.id)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ignored := ignoreSignalsOfMaster()
	defer signal.Stop(ignored)
	ctx, release := sigctl.Context(ctx, stopSignals...)
	defer release()

	w := &workerState{link: link{conn: r.lifeline}, id: r.id, answers: make(chan answer), quiet: make(chan message, 1), stop: stop}
	s := &service{
		pack:   p,
		log:    log,
		listen: func(e endpoint) (net.Listener, error) { return w.socket(ctx, e) },
		pass:   func(e endpoint, c syscall.Conn) error { return w.sendConn(&e, c) },
	}
	go w.receiveAll(ctx, s)
	w.send(message{Type: msgHello, Version: protocolVersion})
	err := s.start(ctx)
	if err == nil && ctx.Err() == nil {
		go w.beat(ctx, s)
		w.send(message{Type: msgReady})
		select {
		case err = <-s.broken:
		case <-ctx.Done():
		}
	}
	if err != nil && ctx.Err() == nil {
		// If it cannot be told to the master, nobody else will say it.
		if w.send(message{Type: msgFailed, Error: err.Error()}) != nil {
			return err
		}
	}
	options := drainOptions{takenOver: true, closed: func() { w.send(message{Type: msgClosed}) }}
	if asked, ok := errors.AsType[*stopRequest](context.Cause(ctx)); ok {
		switch {
		case errors.Is(asked.why, errMasterGone):
			log.Warn("the master is gone, stopping")
			options.takenOver, options.quiesce = false, s.quiesceOwn
		case asked.final:
			options.takenOver, options.quiesce = false, w.quiesce
		default:
			options.handOver, options.unserved = asked.hand, asked.unserved
		}
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), workerShutdownTimeout(p.config.ShutdownTimeout))
	defer cancel()
	cut := s.drain(deadline, options)
	w.send(message{Type: msgEnd, Cut: cut})
	return nil
}

// quiesceOwn keeps new connections out of this worker's sockets, as the master does where there is one.
func (s *service) quiesceOwn() error {
	var errs []error
	for _, l := range s.listeners {
		if tcp, ok := l.Listener.(*net.TCPListener); ok {
			errs = append(errs, reuseport.Quiesce(tcp))
		}
	}
	return errors.Join(errs...)
}

// quiesce asks the master, which has more rights, to keep new connections out of this worker's sockets.
func (w *workerState) quiesce() error {
	if err := w.send(message{Type: msgLast}); err != nil {
		return err
	}
	select {
	case m := <-w.quiet:
		if m.Error != "" {
			return errors.New(m.Error)
		}
		return nil
	case <-time.After(queueLimit):
		return errors.New("the master does not answer")
	}
}

// workerShutdownTimeout leaves a worker a little less than the master waits for it, so that it can still tell
// what it cut, and end by itself.
func workerShutdownTimeout(d time.Duration) time.Duration { return d - min(d/10, 500*time.Millisecond) }

// receiveAll deals with what the master says until the end of the control socket.
func (w *workerState) receiveAll(ctx context.Context, s *service) {
	for {
		m, files, err := w.receive()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				if !errors.Is(err, io.EOF) {
					err = fmt.Errorf("%w: %w", errMasterGone, err)
				} else {
					err = errMasterGone
				}
				w.endInTime(s)
				w.stop(&stopRequest{why: err, final: true})
			}
			return
		}
		switch m.Type {
		case msgDrain:
			w.stop(&stopRequest{why: errors.New("the master asked to"), final: m.Final, hand: m.HandOver, unserved: m.Unserved})
		case msgBoard:
			if len(files) == 1 {
				if err := s.reporter.reportIn(ctx, files[0], m.Slot); err != nil {
					s.log.Debug("this worker cannot report what it has to do", "error", err)
				}
			}
		case msgStacks:
			go writeStacks(w.id)
		case msgReopen:
			if hook := s.pack.config.OnReopen; hook != nil {
				go hook()
			}
		case msgTickets:
			s.tickets.set(m.Keys)
		case msgConn:
			if m.Endpoint != nil && len(files) == 1 {
				w.arrive(s, *m.Endpoint, files[0])
			}
		case msgStay:
			go func() {
				s.stay(ctx)
				w.send(message{Type: msgStayed})
			}()
		case msgLend:
			if m.Endpoint != nil && len(files) == 1 {
				w.borrow(s, loan{*m.Endpoint, m.Socket}, m.Cover, files[0])
			}
		case msgTake:
			if m.Endpoint != nil {
				s.giveBack(loan{*m.Endpoint, m.Socket})
			}
		case msgQuiet:
			select {
			case w.quiet <- m:
			default:
			}
		case msgSocket, msgRefused:
			select {
			case w.answers <- answer{m, files}:
				continue // the files are the receiver's now
			case <-ctx.Done():
			}
		}
		closeAll(files)
	}
}

// endInTime ends this process if it is still there after ShutdownTimeout: there is no master that would. It exits whatever holds it
// up, a hook or the program's own code after Run.
func (w *workerState) endInTime(s *service) {
	limit := s.pack.config.ShutdownTimeout
	time.AfterFunc(limit, func() {
		s.log.Error("the master is gone, and this worker has not ended in time: exiting", "timeout", limit)
		os.Exit(1)
	})
}

// arrive serves a connection that another worker handed over. If this one is draining itself by now, the
// connection goes on to the next.
func (w *workerState) arrive(s *service, e endpoint, f *os.File) {
	c, err := net.FileConn(f) // a copy
	if err != nil {
		s.log.Error("a connection that was handed over is lost", "endpoint", e.String(), "error", err)
		return
	}
	place := s.arrivalsOf(e)
	switch {
	case place == nil:
		s.log.Error("a connection that was handed over is closed: this worker does not serve the endpoint", "endpoint", e.String())
	case place.Deliver(c):
		return
	default:
		if sc, ok := c.(syscall.Conn); ok {
			w.sendConn(&e, sc)
		}
	}
	c.Close()
}

// borrow serves a socket that has no worker of its own, or one that hangs.
func (w *workerState) borrow(s *service, what loan, cover bool, f *os.File) {
	returned := func(err error) {
		m := message{Type: msgReturned, Endpoint: &what.endpoint, Socket: what.socket}
		if err != nil {
			m.Error = err.Error()
		}
		w.send(m)
	}
	l, err := net.FileListener(f) // a copy
	if err == nil {
		err = s.borrow(what, cover, l, returned)
	}
	if err != nil {
		returned(err)
	}
}

// socket asks the master for this worker's socket of an endpoint.
func (w *workerState) socket(ctx context.Context, e endpoint) (net.Listener, error) {
	if err := w.send(message{Type: msgListen, Endpoint: &e}); err != nil {
		return nil, fmt.Errorf("ask the master for %s: %w", e, err)
	}
	select {
	case a := <-w.answers:
		defer closeAll(a.files) // FileListener makes a copy
		switch {
		case a.Type == msgRefused:
			return nil, errors.New(a.Error)
		case len(a.files) != 1:
			return nil, fmt.Errorf("the master sent %d descriptors for %s", len(a.files), e)
		}
		return net.FileListener(a.files[0])
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
