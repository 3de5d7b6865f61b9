package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
)

// workerLink is the link to a worker, which has said hello.
type workerLink struct {
	link
	generation *generation
	process    *procgroup.Process
	share      float64 // of the limits of Config.Recycle

	// Guarded by masterState.mu.
	state linkState
	pulse pulse
	slot  int                 // where it reports; -1 if nowhere
	lent  map[loan]chan error // told what came of sockets lent to it

	stayed chan struct{} // closed when it hands over no connections any more
}

// linkState is what the master knows of a worker from its messages.
type linkState struct {
	Ready   bool `json:"ready,omitempty"`   // it accepts
	Leaving bool `json:"leaving,omitempty"` // it was told to drain
	Closed  bool `json:"closed,omitempty"`  // when draining: it has closed its sockets
}

// stands reports whether the worker accepts, and goes on doing so.
func (l *workerLink) stands() bool { return l.state.Ready && !l.state.Leaving }

// loan is a socket that a worker serves until its queue is empty.
type loan struct {
	endpoint endpoint
	socket   int // whose it is: the worker ID
}

// workerError is why a worker could not serve, in its own words.
type workerError struct{ text string }

func (e *workerError) Error() string { return e.text }

// serve is the master's side of one worker's lifeline. It returns when the lifeline ends, or between two messages when
// the process is released.
func (m *masterState) serve(g *generation, p *procgroup.Process, conn *net.UnixConn) {
	l := &workerLink{link: link{conn: conn}, generation: g, process: p, share: newShare(), lent: map[loan]chan error{}, stayed: make(chan struct{})}
	if known, ok := g.links[p.PID]; ok { // it said hello to a predecessor of this master
		l.state = known
		m.addLink(l)
	}
	for !p.Released() {
		msg, files, err := l.receive()
		if err != nil {
			if !isEnd(err) {
				m.log.Error("what a worker says cannot be read", "worker", p.ID, "pid", p.PID, "error", err)
			}
			break
		}
		m.heed(l, msg, files)
		closeAll(files)
	}
	if p.Released() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, p)
	m.serving()
	m.leaveSteering(l)
	l.hasStayed()
	for _, result := range l.lent {
		result <- errors.New("the worker is gone")
	}
	m.closeUnused()
}

// isEnd reports whether reading failed because the other end is gone, or the process was released.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

func (m *masterState) addLink(l *workerLink) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links[l.process] = l
	m.begin(l) // a predecessor of this master may have known it to be ready already
	m.joinSteering(l)
	m.serving()
}

func (m *masterState) ready(l *workerLink) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.state.Ready = true
	m.begin(l)
	m.serving()
}

// heed does what a worker's message asks for.
func (m *masterState) heed(l *workerLink, msg message, files []*os.File) {
	p := l.process
	switch msg.Type {
	case msgConn:
		m.forward(p, msg.Endpoint, files)
	case msgHello:
		if msg.Version != protocolVersion {
			p.Fail(fmt.Errorf("the worker speaks version %d of the protocol, this master %d", msg.Version, protocolVersion))
			p.Signal(os.Kill)
			return
		}
		m.addLink(l)
		l.send(m.tickets.message())
	case msgListen:
		m.answer(l, msg.Endpoint)
	case msgBeat:
		m.beat(l, msg.Vitals)
	case msgReady:
		m.ready(l)
		p.Ready()
	case msgFailed:
		p.Fail(&workerError{msg.Error})
	case msgLast:
		answer := message{Type: msgQuiet}
		if err := m.sockets.quiesce(p.ID); err != nil {
			answer.Error = err.Error()
		}
		l.send(answer)
	case msgClosed:
		m.socketsClosed(l)
	case msgStayed:
		l.hasStayed()
	case msgReturned:
		m.returned(l, msg)
	case msgEnd:
		m.wasCut(p, msg.Cut)
	}
}

// hasStayed is called by serve only.
func (l *workerLink) hasStayed() {
	select {
	case <-l.stayed:
	default:
		close(l.stayed)
	}
}

// endHandOvers has workers that drain keep the connections that they have, since those to which these would go are about
// to drain, too. It returns when none is on its way any more.
func (m *masterState) endHandOvers() {
	var asked []*workerLink
	m.mu.Lock()
	for _, l := range m.links {
		if l.state.Leaving || l.generation != m.current {
			asked = append(asked, l)
		}
	}
	m.mu.Unlock()
	for _, l := range asked {
		l.send(message{Type: msgStay})
	}
	limit := time.After(2 * stayLimit)
	for _, l := range asked {
		select {
		case <-l.stayed:
		case <-limit:
			return
		}
	}
}

// answer gives a worker the socket that it asks for.
func (m *masterState) answer(l *workerLink, e *endpoint) {
	if e == nil {
		l.send(message{Type: msgRefused, Error: "the request names no endpoint"})
		return
	}
	socket, err := m.sockets.get(context.Background(), *e, l.process.ID, l.generation.plan.workers())
	if err != nil {
		l.send(message{Type: msgRefused, Error: err.Error()})
		return
	}
	m.mu.Lock()
	l.generation.uses[*e] = true
	m.mu.Unlock()
	if err := l.send(message{Type: msgSocket}, socket); err != nil {
		l.process.Kill(fmt.Errorf("it cannot be sent its socket of %s: %w", e, err)) // rather than at ReadyTimeout
	}
}

// terminate asks a worker to drain. One that has not come as far as Run has no sockets, and nothing to drain: the
// group kills it for the error.
func (m *masterState) terminate(p *procgroup.Process) error {
	m.mu.Lock()
	l, final := m.links[p], m.stopping
	if l == nil {
		m.mu.Unlock()
		return errors.New("it has not come as far as Run")
	}
	l.state.Leaving = true
	m.serving()
	drain := message{Type: msgDrain, Final: final, HandOver: !final}
	if !final {
		drain.Unserved = l.generation.usesMoreThan(m.current)
	}
	m.mu.Unlock()
	return l.send(drain)
}

// forward passes on a connection that a draining worker hands over, to a worker that accepts: the one in its place
// if that can be. Nobody may accept just now, such as when all have crashed and their replacements are starting.
func (m *masterState) forward(from *procgroup.Process, e *endpoint, files []*os.File) {
	const patience = 5 * time.Second
	if e == nil || len(files) != 1 {
		return
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		links, stopping := m.successors(from)
		for _, l := range links {
			if l.sendConn(e, files[0]) == nil {
				return
			}
		}
		if stopping || time.Now().After(deadline) {
			m.log.Warn("a connection was lost that a worker handed over: no worker could take it", "worker", from.ID, "pid", from.PID)
			return
		}
	}
}

// successors returns the links to the workers that accept, with the one that has the number of from first.
func (m *masterState) successors(from *procgroup.Process) (links []*workerLink, stopping bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return nil, true
	}
	for p, l := range m.links {
		switch {
		case p == from || !m.takesOver(l):
		case p.ID == from.ID:
			links = slices.Insert(links, 0, l)
		default:
			links = append(links, l)
		}
	}
	return links, false
}

// takesOver reports whether a worker accepts what others do not any more: it stands, and is not late. It is called with mu locked.
func (m *masterState) takesOver(l *workerLink) bool {
	return l.stands() && !l.pulse.late && (l.generation == m.current || l.generation.inPlace[l.process.ID])
}

// broadcast sends a message to every worker. One that cannot be told will be noticed otherwise.
func (m *masterState) broadcast(msg message) {
	m.mu.Lock()
	links := slices.Collect(maps.Values(m.links))
	m.mu.Unlock()
	for _, l := range links {
		l.send(msg)
	}
}

// socketsClosed notes that a draining worker has closed its sockets.
func (m *masterState) socketsClosed(l *workerLink) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.state.Closed = true
	m.closeUnused()
}

// closeUnused closes the master's sockets that no worker has or will have, so that clients are refused instead of waiting:
// all of them in a stop, or those that the generation that goes on does not serve. It is called with mu locked.
func (m *masterState) closeUnused() {
	for _, l := range m.links {
		if !l.state.Closed && (m.stopping || l.generation != m.current) {
			return
		}
	}
	if m.stopping {
		m.sockets.close()
	} else if m.current.isUp() {
		m.sockets.keep(m.current.uses)
	}
}

// lend has some worker serve a socket that is about to be closed, until nobody connects to it any more.
func (m *masterState) lend(ctx context.Context, what loan, socket descriptor) error {
	l, err := m.borrower(what.socket)
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	m.mu.Lock()
	l.lent[what] = result
	m.mu.Unlock()
	if err := l.send(message{Type: msgLend, Endpoint: &what.endpoint, Socket: what.socket}, socket); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lendLimit)
	defer cancel()
	select {
	case err = <-result:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(l.lent, what)
	return err
}

// borrower returns a worker that accepts, for socket n: another for another n.
func (m *masterState) borrower(n int) (*workerLink, error) {
	links, _ := m.successors(&procgroup.Process{ID: n})
	if len(links) == 0 {
		return nil, errors.New("no worker accepts")
	}
	slices.SortFunc(links, func(a, b *workerLink) int { return cmp.Compare(a.process.ID, b.process.ID) })
	return links[n%len(links)], nil
}

// returned notes that a worker is done with a socket that was lent to it.
func (m *masterState) returned(l *workerLink, msg message) {
	if msg.Endpoint == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	result, ok := l.lent[loan{*msg.Endpoint, msg.Socket}]
	if !ok {
		return
	}
	delete(l.lent, loan{*msg.Endpoint, msg.Socket})
	if msg.Error == "" {
		result <- nil
	} else {
		result <- errors.New(msg.Error)
	}
}
