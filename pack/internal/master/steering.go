package master

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// steeringHand calls the steering, one call at a time.
type steeringHand struct {
	master    *Master
	work      *serial
	inherited map[wire.Endpoint]*os.File // what the steering of a predecessor left

	mu     sync.Mutex
	boards map[roster.Ref]*os.File
}

func newSteeringHand(m *Master) *steeringHand {
	return &steeringHand{master: m, work: newSerial(), boards: map[roster.Ref]*os.File{}}
}

// inherit keeps what the steering of a predecessor left. It is called before anything else.
func (h *steeringHand) inherit(files map[wire.Endpoint]*os.File) { h.inherited = files }

func (h *steeringHand) perform(e effect) {
	h.work.do(func() {
		s := h.master.Steering
		switch e := e.(type) {
		case startSteering:
			s.Watch(func(worker int, hung bool) { h.master.post(steeringHung{worker, hung}) })
			h.master.post(steeringStarted{s.Start(e.plan.Pinned())})
		case attachSteering:
			inherited := h.inherited[e.endpoint]
			delete(h.inherited, e.endpoint)
			a := attached{endpoint: e.endpoint}
			if a.err = s.Attach(e.endpoint.Name(), h.master.listeners(e), inherited); a.err == nil {
				a.mode, a.reason = s.Mode()
			}
			h.master.post(a)
		case steer:
			h.report(h.steer(e))
		case joinSteering:
			h.join(e.ref)
		case leaveSteering:
			s.Leave(e.slot)
			if board := h.board(e.ref); board != nil {
				board.Close() // the worker has ended before it was told
			}
		}
	})
}

func (m *Master) listeners(e attachSteering) []syscall.Conn {
	return m.sockets.Listeners(e.endpoint, e.workers)
}

func (h *steeringHand) report(err error) {
	if err != nil {
		h.master.post(steeringFailed{err})
	}
}

func (h *steeringHand) steer(e steer) error {
	switch s := h.master.Steering; e.to.State {
	case roster.SteerUp:
		return s.Up(e.worker, e.to.Slot)
	case roster.SteerDrain:
		return s.Drain(e.worker)
	default:
		return s.Down(e.worker)
	}
}

// join finds a slot for a worker to report in.
func (h *steeringHand) join(ref roster.Ref) {
	s := h.master.Steering
	board, err := s.Board()
	if err != nil { // there is none in the mode that it is in
		h.master.post(steeringJoined{ref, slotNone})
		return
	}
	slot, err := s.Join()
	if err != nil {
		board.Close()
		h.report(err)
		return
	}
	if before := h.board(ref); before != nil {
		before.Close()
	}
	h.mu.Lock()
	h.boards[ref] = board
	h.mu.Unlock()
	h.master.post(steeringJoined{ref, slot})
}

// board returns what a worker is to report on and was not told yet, which the caller closes; nil if there is nothing.
func (h *steeringHand) board(ref roster.Ref) *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.boards[ref]
	delete(h.boards, ref)
	return f
}

// exportTime is how long the steering may take to tell what a successor needs. Nobody listens to workers meanwhile.
const exportTime = 2 * time.Second

// export returns what the program that takes the place of this one needs to attach its steering without a gap.
func (h *steeringHand) export(e wire.Endpoint) (*os.File, error) {
	s := h.master.Steering
	if s == nil {
		return nil, nil
	}
	type answer struct {
		f   *os.File
		err error
	}
	answers := make(chan answer, 1)
	h.work.do(func() {
		f, err := s.Export(e.Name())
		answers <- answer{f, err}
	})
	limit := time.NewTimer(exportTime)
	defer limit.Stop()
	select {
	case a := <-answers:
		return a.f, a.err
	case <-limit.C:
		go func() {
			if a := <-answers; a.f != nil {
				a.f.Close()
			}
		}()
		return nil, fmt.Errorf("no answer within %v", exportTime)
	}
}

// close ends the steering of this process. The sockets go on being steered by what was last known, where the kernel
// does it. It does not wait for a steering that is stuck.
func (h *steeringHand) close() {
	s := h.master.Steering
	if s == nil {
		return
	}
	done := make(chan struct{})
	h.work.do(func() {
		defer close(done)
		if err := s.Close(); err != nil {
			h.master.log.debug("close the steering", "error", err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, f := range h.boards {
			f.Close()
		}
		for _, f := range h.inherited {
			f.Close()
		}
	})
	within(forceTime, done)
}

// within waits until done is closed, but not longer than d.
func within(d time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
