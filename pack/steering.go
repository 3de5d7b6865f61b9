package pack

import (
	"net"
	"os"
	"syscall"

	"github.com/gopherpack/gopherpack/affinity"
)

// Steering has the kernel choose which worker's socket a connection goes to. Package ebpf/steer has one, which it says more
// about. Its methods are called in the master, which does without what they cannot do, but for Start, and logs it once.
type Steering interface {
	// Start gets ready for workers 0 to n-1, which are pinned to these CPUs, and forgets what was before. An error keeps
	// the pack from starting, or calls an upgrade off.
	Start(workers []affinity.Set) error

	// Mode returns how connections are steered, and why in no better way. With "hash" and
	// "SO_INCOMING_CPU" the kernel may choose any socket of the group, otherwise only those that were attached.
	Mode() (mode string, reason error)

	// Attach steers what comes to a group of sockets, of which sockets[i] is worker i's. inherited, which it closes, is what
	// Bequeath returned in the program whose place this one has taken; nil if there was none.
	Attach(name string, sockets []syscall.Conn, inherited *os.File) error

	// Bequeath returns what the program that takes the place of this one needs to attach its steering without a gap: a
	// file that the caller closes, or nil.
	Bequeath(name string) (*os.File, error)

	// Join finds a slot on the board for a worker process to report in, and Leave gives it back.
	Join() (slot int, err error)
	Leave(slot int)

	// Board returns what worker processes report on. The caller closes it.
	Board() (*os.File, error)

	// Up says that a worker accepts connections, and in which slot it reports; Drain that it only finishes what it has,
	// and Down that it is gone.
	Up(worker, slot int) error
	Drain(worker int) error
	Down(worker int) error

	// Watch has f called when a worker is found to hang, and when it goes on. It is called before Start.
	Watch(f func(worker int, hung bool))

	// Close ends the steering of this process.
	Close() error
}

// steered is how a worker's socket is steered.
type steered struct {
	state string // "up", "draining" or "down"
	slot  int
}

// startSteering begins to steer among the workers of a plan, if that is wanted.
func (m *masterState) startSteering(p plan) error {
	s := m.config.Steering
	if s == nil {
		return nil
	}
	m.mu.Lock()
	m.steered = nil // nothing is told until it has started
	clear(m.hung)
	m.mu.Unlock()
	s.Watch(m.hangs)
	if err := s.Start(p.pinned()); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steered, m.steeredAmong = map[int]steered{}, p.workers()
	for _, l := range m.links { // of a predecessor
		m.joinSteering(l)
	}
	m.serving()
	m.sockets.steer(p.workers(), m.attachSteering)
	return nil
}

// trySteering starts the steering as startSteering does, and ends it.
func (c *Config) trySteering(p plan) error {
	if c.Steering == nil {
		return nil
	}
	if err := c.Steering.Start(p.pinned()); err != nil {
		return err
	}
	return c.Steering.Close()
}

// stopSteering ends it. The sockets go on being steered by what was last known, where the kernel does it, until the
// successor of this program begins anew.
func (m *masterState) stopSteering() {
	if s := m.config.Steering; s != nil {
		if err := s.Close(); err != nil {
			m.log.Debug("close the steering", "error", err)
		}
	}
}

// attachSteering steers what comes to the sockets of an endpoint, and reports whether they alone are chosen then.
func (m *masterState) attachSteering(e endpoint, listeners []net.Listener, inherited *os.File) (byProgram bool) {
	var sockets []syscall.Conn
	for _, l := range listeners {
		sockets = append(sockets, l.(syscall.Conn))
	}
	s := m.config.Steering
	if err := s.Attach(e.name(), sockets, inherited); err != nil {
		m.log.Error("connections are not steered", "endpoint", e.String(), "error", err)
		return false
	}
	mode, reason := s.Mode()
	if reason != nil {
		m.log.Warn("steering", "endpoint", e.String(), "mode", mode, "reason", reason)
	} else {
		m.log.Info("steering", "endpoint", e.String(), "mode", mode)
	}
	return mode != "hash" && mode != "SO_INCOMING_CPU"
}

// steeringFails logs that the pack does without, once.
func (m *masterState) steeringFails(err error) {
	m.log.Error("connections are not steered", "error", err)
	m.steered = nil
}

// joinSteering tells a worker where to report. It is called with mu locked.
func (m *masterState) joinSteering(l *workerLink) {
	l.slot = -1
	if m.steered == nil {
		return
	}
	f, err := m.config.Steering.Board()
	if err != nil {
		return // there is none in the mode that it is in
	}
	defer f.Close()
	if l.slot, err = m.config.Steering.Join(); err != nil {
		m.steeringFails(err)
		return
	}
	if err := l.send(message{Type: msgBoard, Slot: l.slot}, f); err != nil {
		m.log.Debug("a worker cannot be told where to report", "worker", l.process.ID, "error", err)
	}
}

// leaveSteering notes that a worker is gone. It is called with mu locked.
func (m *masterState) leaveSteering(l *workerLink) {
	if m.steered != nil && l.slot >= 0 {
		m.config.Steering.Leave(l.slot)
	}
}

// steer tells the steering what has changed of the workers. It is called with mu locked. While workers are being adopted
// nothing has changed that was told before.
func (m *masterState) steer() {
	if m.steered == nil || m.current == nil || m.adopting && len(m.steered) > 0 {
		return
	}
	for id := range m.current.plan.workers() {
		now := m.steeredBy(id)
		if now == m.steered[id] {
			continue
		}
		var err error
		switch s := m.config.Steering; now.state {
		case "up":
			delete(m.hung, id)
			err = s.Up(id, now.slot)
		case "draining":
			err = s.Drain(id)
		default:
			err = s.Down(id)
		}
		if err != nil {
			m.steeringFails(err)
			return
		}
		m.steered[id] = now
	}
}

// steeredBy returns who serves the socket of a worker: where two generations do, the one that stays.
func (m *masterState) steeredBy(id int) steered {
	is := steered{state: "down"}
	for p, l := range m.links {
		switch {
		case p.ID != id || !l.state.Ready:
		case m.takesOver(l):
			return steered{state: "up", slot: l.slot}
		case !l.state.Closed:
			is = steered{state: "draining"}
		}
	}
	return is
}
