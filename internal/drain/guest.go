package drain

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// guest is a connection of a server that somebody else wrote. It stands between the server and the socket, counts the
// connection, and tells whether its client waits for an answer. If the connection turns out to be plaintext HTTP/1.1 it
// can be handed over between a response and the next request, as those of net/http can (see movable): the server's Read
// ends as if the client had closed the connection, the server closes it, and Close hands it over instead. What the
// client sends meanwhile stays in the kernel and travels along.
type guest struct {
	socket net.Conn
	house  *foreign
	pass   func(syscall.Conn) error // hands the socket over; nil if that cannot be
	bound  *atomic.Bool             // set when nobody goes on serving its endpoint

	mu       sync.Mutex
	framing  framing
	reads    int       // that are under way
	writes   int       // that are under way
	owed     bool      // something was read since something was written last
	answered bool      // something was written
	told     bool      // the response says that it is the last
	untold   time.Time // when one ended in a drain that does not
	touched  bool      // the server has begun with it
	woken    bool      // the deadline of reading is ours
	recalled bool      // it was, and a Read may have met it
	released bool      // Read has ended for our deadline
	goes     bool      // and the next Close hands over
	closing  bool      // there was a Close
	kept     bool      // it is kept alive, and can be handed over: the server's load knows of it
	stays    bool      // as of httpConn
	shed     bool      // it is to go, though the server does not drain
	deadline time.Time

	arrived bool          // from another worker, and nothing was read since
	allowed time.Duration // that its server, to which it is new, gives its first request
}

// arrivalIdle is how long a connection that has arrived from another worker may stay idle, unless its server gives new
// ones more time. To the server it has been idle for longer, and for that it may give another time, which nobody knows.
const arrivalIdle = time.Minute

// isFresh reports whether the server has not begun with it, or has not said anything yet.
func (g *guest) isFresh() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.touched || !g.answered
}

// isUntold reports whether the response to its last request has just ended, in a drain, and has not said that it is the
// last: the next may be on its way.
func (g *guest) isUntold() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.told && g.framing.between() && time.Since(g.untold) < newConnGrace
}

// isAsked reports whether its client waits for an answer, as far as one can tell: HTTP/1.1 can be followed; of what
// else there is a server is likely to work while it does not read.
func (g *guest) isAsked() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.framing.known && !g.framing.lost {
		return !g.framing.between() || g.writes > 0 // framing is told before
	}
	return g.owed && g.reads == 0
}

// isBetween reports whether it is between a response and the next request, as far as one can tell.
func (g *guest) isBetween() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.framing.between() && g.writes == 0
}

// canGo reports whether it can be handed over now. It is called with mu locked.
func (g *guest) canGo() bool {
	return g.pass != nil && !g.bound.Load() && g.framing.between() && g.writes == 0
}

// mayEnd reports whether its Read may end now as if the client had closed the connection: it can go, or is to end. It
// is called with mu locked.
func (g *guest) mayEnd() bool {
	if (g.told || g.house.lastOrders.Load()) && g.framing.between() && g.writes == 0 {
		return true
	}
	return g.mayGoOn()
}

// mayGoOn reports whether it can be handed over now, and is to be. It is called with mu locked.
func (g *guest) mayGoOn() bool { return (g.house.handsOver() || g.shed) && g.canGo() }

// wake makes it go, or end, if it can, as soon as the server reads. It is called with mu locked.
func (g *guest) wake() {
	if !g.woken && !g.released && (g.mayEnd() || g.sheds()) {
		g.woken = true
		g.socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// sheds reports whether it is to go though the server does not drain. It is called with mu locked.
func (g *guest) sheds() bool {
	g.shed = g.kept && !g.stays && g.canGo() && !g.house.staying.Load() && g.house.conns.sheds()
	return g.shed
}

// consider makes it go, if it is idle and one is to. If it is busy it stays, if such are to.
func (g *guest) consider(keepBusy bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stays = keepBusy && !g.framing.between()
	g.wake()
}

// keep notes whether it is kept alive, and can be handed over. It is called with mu locked.
func (g *guest) keep(is bool) {
	switch {
	case is && !g.kept && g.pass != nil && !g.bound.Load():
		g.kept = true
		g.house.conns.movable(1)
	case !is && g.kept:
		g.kept = false
		g.house.conns.movable(-1)
	}
}

// sendOff makes it go, or end, if it can, and reports whether it will.
func (g *guest) sendOff() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wake()
	return g.woken
}

// takeBack puts the server's own deadline in place of ours. It is called with mu locked.
func (g *guest) takeBack() {
	if g.shed {
		g.house.conns.stays()
	}
	g.woken, g.shed = false, false
	g.socket.SetReadDeadline(g.deadline)
}

// stay undoes wake, unless the connection is on its way already, which it reports.
func (g *guest) stay() (leaving bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.woken && !g.released {
		g.recalled = true
		g.takeBack()
	}
	return g.released
}

func (g *guest) read(b []byte) (int, error) {
	mayGo := g.mayGo(len(b))
	for {
		if g.beforeRead(mayGo) {
			return 0, io.EOF
		}
		n, err := g.socket.Read(b)
		if again, err := g.afterRead(b[:n], mayGo, err); !again {
			return n, err
		}
	}
}

// mayGo reports whether a Read of so many bytes can be one that waits for a request. While a handler runs, net/http
// looks for the end of the connection by reading a byte.
func (g *guest) mayGo(length int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.touched = true
	return length > 1 || g.framing.between()
}

// beforeRead reports whether there is nothing to be read any more.
func (g *guest) beforeRead(mayGo bool) (over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.released {
		return true
	}
	g.reads++
	if mayGo {
		g.wake()
	}
	return false
}

// afterRead takes our deadline back, if it is set, and reports whether the Read has failed for nothing else and is to
// be repeated. If the connection can go now, it has the Read end.
func (g *guest) afterRead(b []byte, mayGo bool, err error) (again bool, _ error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reads--
	if len(b) > 0 {
		g.owed = true
		if g.framing.between() { // it is not the first request
			g.keep(true)
		}
		g.framing.request(b)
		if g.framing.lost {
			g.keep(false)
		}
		g.beginFirst()
	}
	if !g.woken && !g.recalled && !g.released {
		return false, err // as of nearly all
	}
	failed := len(b) == 0 && errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case failed && g.released: // by another Read
		return false, io.EOF
	case !g.woken:
		again = failed && g.recalled // if it is the server's own deadline that has passed, Read fails again
		g.recalled = false
		return again, err
	case failed && mayGo && g.mayEnd():
		g.released, g.goes = true, g.mayGoOn()
		g.shed = false
		return false, io.EOF
	}
	g.takeBack()
	return failed, err
}

// write writes by a function. The framing is told of what is written before that, in the same moment in which the write
// begins: else the connection could go between the two, and take the place of an answer; or, if it is not known before,
// afterwards.
func (g *guest) write(before func(), how func() (int64, error), after func(n int64)) (int64, error) {
	g.mu.Lock()
	if g.released {
		g.mu.Unlock()
		return 0, net.ErrClosed
	}
	g.writes++
	g.touched, g.answered, g.owed = true, true, false
	before()
	g.mu.Unlock()
	n, err := how()
	g.mu.Lock()
	defer g.mu.Unlock()
	after(n)
	if err != nil {
		g.framing.lose()
	}
	if g.house.draining.Load() {
		g.untold = time.Now()
	}
	g.writes--
	g.wake() // another goroutine may wait in Read
	return n, err
}

func (g *guest) writeBytes(b []byte) (int, error) {
	said := b
	field := 0
	n, err := g.write(func() { // before the client can know
		if field = g.framing.response(b); field > 0 && g.isToEnd() {
			g.told = true
			said = slices.Concat(b[:field], []byte(closeField), b[field:])
		}
	}, func() (int64, error) {
		n, err := g.socket.Write(said)
		return int64(n), err
	}, func(int64) {})
	if len(said) > len(b) && int(n) > field {
		n = max(n-int64(len(closeField)), int64(field))
	}
	return int(n), err
}

// closeField says that a response is the last of its connection (RFC 9112, section 9.6), whatever else the head says.
const closeField = "Connection: close\r\n"

// isToEnd reports whether its client is to be told to go. It is called with mu locked.
func (g *guest) isToEnd() bool {
	if !g.house.draining.Load() { // which is set after what handsOver says
		return false
	}
	goes := g.house.handsOver() && g.pass != nil && !g.bound.Load()
	return !goes
}

func (g *guest) readFrom(from func() (int64, error)) (int64, error) {
	return g.write(func() {}, from, g.framing.responseBody)
}

// lose gives up following it: what is read is not seen.
func (g *guest) lose() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.touched = true
	g.framing.lose()
	if g.woken {
		g.takeBack()
	}
}

func (g *guest) setReadDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.touched, g.deadline = true, t
	if g.arrived {
		if g.allowed = max(0, time.Until(t)); g.allowed > 0 {
			g.deadline = time.Now().Add(max(g.allowed, arrivalIdle))
		}
	}
	if g.woken {
		return nil // afterRead sets it
	}
	return g.socket.SetReadDeadline(g.deadline)
}

// beginFirst has the time begin that the server gives the first request of a connection that has arrived. It is called
// with mu locked.
func (g *guest) beginFirst() {
	if g.arrived && g.allowed > 0 {
		g.deadline = time.Now().Add(g.allowed)
		if !g.woken {
			g.socket.SetReadDeadline(g.deadline)
		}
	}
	g.arrived = false
}

func (g *guest) setDeadline(t time.Time) error {
	return errors.Join(g.setReadDeadline(t), g.socket.SetWriteDeadline(t))
}

// close closes the socket, after a copy of it was handed over if it was released for that.
func (g *guest) close() error {
	g.mu.Lock()
	goes, again := g.goes, g.closing
	g.closing = true
	g.mu.Unlock()
	if again {
		return net.ErrClosed
	}
	defer g.house.leave(g)
	if goes {
		return passOn(g.socket.(descriptorConn), g.pass)
	}
	return g.socket.Close()
}
