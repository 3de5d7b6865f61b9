package drain

import (
	"cmp"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// An idle plaintext HTTP/1.1 connection need not be closed when its worker drains: the descriptor can go to the
// worker that takes over, and the client does not notice.
//
// net/http knows nothing of this. It waits in Read for the next request; movable makes that Read fail, net/http
// gives up and closes the connection, and Close hands it over instead. Nothing may be lost on the way:
//
//   - What the client sends meanwhile stays in the kernel and travels along, since a Read whose deadline has
//     passed does not look.
//   - What net/http has read already does not. So the connection stays if anything was read since it became idle.
//     What was read before, the beginning of a pipelined request, is in net/http's bufio.Reader; then the buffer
//     that it passes to Read is shorter than at the very first Read. If it was whole lines, net/http keeps them
//     elsewhere; then it has set a second deadline since the connection became idle.
//   - A request that arrived just before must not meet the deadline that was meant for the idle Read. So it is
//     taken back as soon as anything is read.

// movable is the part of a connection that can be handed over. It stands between net/http and the socket.
type movable struct {
	httpConn
	holder
	socket descriptorConn
	pass   func(syscall.Conn) error // hands the socket over
	bound  *atomic.Bool             // set when nobody goes on serving its endpoint

	readLen atomic.Int64 // the length of Read's buffer in the Read that is under way

	// These are guarded by mu.
	dirty     bool      // something was read since net/http is between requests
	deadlines int       // how many net/http has set since then: one for the idle time, one when the header has begun
	emptyLen  int       // the length of Read's buffer when net/http holds back nothing; 0 before the first
	woken     bool      // the deadline on the socket is ours
	sheds     bool      // and set though the server does not drain
	recalled  bool      // it was ours, and a Read may have met it
	released  bool      // Read failed for our deadline: the next Close hands over
	closing   bool      // there was a Close
	deadline  time.Time // net/http's own

	unread     bool          // it has arrived from another worker, and nothing was read since
	headerTime time.Duration // that net/http gives a request's header; 0 is for ever
	readTime   time.Duration // and the whole of it
	started    time.Time     // when the first request since it has arrived did, until its header is read
}

// descriptorConn is a connection of which copies can be sent.
type descriptorConn interface {
	net.Conn
	syscall.Conn
}

// wake makes the connection go, if it is idle.
func (m *movable) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.between() && !m.woken && !m.released && !m.bound.Load() {
		m.woken = true
		m.socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// shed makes a connection go that is kept alive and idle, if one is to, and reports whether it does.
func (m *movable) shed() bool {
	if !m.server.open.sheds() { // asked first, since it takes no lock
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.kept || m.stays || !m.between() || m.woken || m.released || m.bound.Load() {
		m.server.open.stays()
		return false
	}
	m.woken, m.sheds = true, true
	m.socket.SetReadDeadline(time.Unix(1, 0))
	return true
}

// consider does that for one that may be busy: then it stays, if such are to.
func (m *movable) consider(keepBusy bool) {
	m.mu.Lock()
	m.stays = keepBusy && !m.between()
	m.mu.Unlock()
	m.shed()
}

// stay undoes wake, unless the connection is on its way already, which it reports.
func (m *movable) stay() (leaving bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.woken && !m.released {
		m.recalled = true
		m.takeBack()
	}
	return m.released
}

// became follows net/http. A connection that is not between requests has no deadline of ours.
func (m *movable) became(connState) {
	m.dirty, m.deadlines, m.started = false, 0, time.Time{}
	if !m.between() && m.woken {
		m.takeBack()
	}
}

// takeBack puts net/http's deadline in place of ours. It is called with mu locked.
func (m *movable) takeBack() {
	if m.sheds {
		m.server.open.stays()
	}
	m.woken, m.sheds = false, false
	m.socket.SetReadDeadline(m.deadline)
}

func (m *movable) read(b []byte) (int, error) {
	if n := int64(len(b)); m.readLen.Load() != n { // a store costs more
		m.readLen.Store(n)
	}
	for {
		n, err := m.socket.Read(b)
		if again := m.afterRead(len(b), n, err); !again {
			return n, err
		}
	}
}

// held reports whether net/http holds back something of the next request. It is called with mu locked.
func (m *movable) held() bool {
	return m.dirty || m.deadlines > 1 || m.emptyLen != 0 && m.readLen.Load() != int64(m.emptyLen)
}

func (m *movable) begun() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.between() && m.held()
}

// afterRead takes back our deadline, if it is set, and reports whether the Read has failed for nothing else and
// is to be repeated. If the connection can go now, it lets the failure through.
func (m *movable) afterRead(length, n int, err error) (again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.emptyLen == 0 {
		m.emptyLen = length
	}
	m.dirty = m.dirty || n > 0
	if n > 0 && m.unread {
		m.beginHeader()
	}
	if !m.woken && !m.recalled {
		return false // as of nearly all
	}
	failed := n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
	if !m.woken {
		m.recalled = false
		return failed // if it is net/http's own deadline that has passed, Read fails again
	}
	if failed && m.between() && !m.held() {
		m.released, m.sheds = true, false
		return false
	}
	m.takeBack()
	return failed
}

func (m *movable) setReadDeadline(t time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unread {
		return nil // to net/http it is new, and has begun with a request
	}
	if !m.started.IsZero() && !t.IsZero() {
		t = m.started.Add(m.readTime) // net/http has counted since it has arrived
	}
	none := t.IsZero() && m.deadline.IsZero() // net/http says so three times for each request
	m.deadline = t
	m.deadlines++
	if none || m.woken {
		return nil // if it is woken, afterRead sets it
	}
	return m.socket.SetReadDeadline(t)
}

// arrive makes the connection what it was where it comes from: idle, for so long at most as the server allows. A
// request begins with its first byte.
func (m *movable) arrive(s *http.Server) {
	m.state, m.arrived, m.unread = idle, true, true
	m.headerTime, m.readTime = cmp.Or(s.ReadHeaderTimeout, s.ReadTimeout), s.ReadTimeout
	if idleTime := cmp.Or(s.IdleTimeout, s.ReadTimeout); idleTime > 0 {
		m.deadline = time.Now().Add(idleTime)
		m.socket.SetReadDeadline(m.deadline)
	}
}

// beginHeader sets the deadline of a request's header. It is called with mu locked.
func (m *movable) beginHeader() {
	m.unread, m.deadline, m.started = false, time.Time{}, time.Now()
	if m.headerTime > 0 {
		m.deadline = m.started.Add(m.headerTime)
	}
	if !m.woken {
		m.socket.SetReadDeadline(m.deadline)
	}
}

func (m *movable) setDeadline(t time.Time) error {
	return errors.Join(m.setReadDeadline(t), m.socket.SetWriteDeadline(t))
}

// close closes the socket, after a copy of it was handed over if it was released for that.
func (m *movable) close() error {
	m.mu.Lock()
	released, again := m.released, m.closing
	m.closing = true
	m.mu.Unlock()
	if again {
		return net.ErrClosed // net/http's Shutdown may close what is on its way
	}
	defer m.leave()
	if released {
		defer m.passed()
		return passOn(m.socket, m.pass)
	}
	return m.socket.Close()
}

// passOn hands a socket over, and closes this process's copy, whatever comes of it.
func passOn(socket descriptorConn, pass func(syscall.Conn) error) error {
	if err := pass(socket); err != nil {
		socket.Close()
		return err
	}
	return socket.Close()
}

// passed notes that the connection is not on its way any more.
func (m *movable) passed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.released = false
}

// movableConn is implemented by the connections below.
type movableConn interface{ movablePart() *movable }

func (m *movable) movablePart() *movable { return m }

// canGo reports whether a connection can be handed over when it is idle.
func canGo(c ownConn) bool {
	m, ok := c.(movableConn)
	return ok && !m.movablePart().bound.Load()
}

// movableTCP and movableUnix embed the concrete type, which keeps ReadFrom (sendfile, splice), writev, SyscallConn,
// CloseWrite and the rest as they are.
type movableTCP struct {
	*net.TCPConn
	movable
}

func (c *movableTCP) Read(b []byte) (int, error)        { return c.read(b) }
func (c *movableTCP) Close() error                      { return c.close() }
func (c *movableTCP) SetDeadline(t time.Time) error     { return c.setDeadline(t) }
func (c *movableTCP) SetReadDeadline(t time.Time) error { return c.setReadDeadline(t) }

type movableUnix struct {
	*net.UnixConn
	movable
}

func (c *movableUnix) Read(b []byte) (int, error)        { return c.read(b) }
func (c *movableUnix) Close() error                      { return c.close() }
func (c *movableUnix) SetDeadline(t time.Time) error     { return c.setDeadline(t) }
func (c *movableUnix) SetReadDeadline(t time.Time) error { return c.setReadDeadline(t) }

// Movable implements Mover.
func (h *HTTP) Movable(l net.Listener, pass func(syscall.Conn) error, bound *atomic.Bool) net.Listener {
	return movableListener{l, pass, &h.open, bound, h.Server}
}

// movableListener makes the connections of a listener movable, and counts the open ones.
type movableListener struct {
	net.Listener
	pass  func(syscall.Conn) error
	conns *count
	bound *atomic.Bool // as of movable

	server *http.Server
}

// Arrived makes of a connection that another worker has handed over what the listener of Movable knows as such.
func Arrived(c net.Conn) net.Conn { return arrived{c} }

type arrived struct{ net.Conn }

func (l movableListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

func (l movableListener) wrap(c net.Conn) net.Conn {
	a, hasArrived := c.(arrived)
	if hasArrived {
		c = a.Conn
	}
	switch c := c.(type) {
	case *net.TCPConn:
		m := &movableTCP{TCPConn: c}
		l.prepare(&m.movable, c, hasArrived)
		return m
	case *net.UnixConn:
		m := &movableUnix{UnixConn: c}
		l.prepare(&m.movable, c, hasArrived)
		return m
	}
	return track(c, l.conns) // no listener of a worker has others
}

func (l movableListener) prepare(m *movable, socket descriptorConn, hasArrived bool) {
	l.conns.add(1)
	m.socket, m.pass, m.bound, m.conns = socket, l.pass, l.bound, l.conns
	if hasArrived {
		m.arrive(l.server)
	}
}
