package steer

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// How often the workers are looked at, while there is something to do and while there is not.
const (
	lookOften  = 50 * time.Millisecond
	lookSeldom = 250 * time.Millisecond
)

// watch looks at the workers again and again, until stop is closed.
func (s *Steering) watch(stop <-chan struct{}) {
	timer := time.NewTimer(lookOften)
	defer timer.Stop()
	for {
		select {
		case now := <-timer.C:
			next := lookSeldom
			if s.look(now) {
				next = lookOften
			}
			timer.Reset(next)
		case <-stop:
			return
		}
	}
}

// look reads what workers report, and tells the program what has become of it. It reports whether there is anything to
// do for them.
func (s *Steering) look(now time.Time) (busy bool) {
	changed := map[int]bool{}
	var watcher func(int, bool)
	defer func() {
		for id, hung := range changed {
			watcher(id, hung)
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kernel == nil {
		return false
	}
	var latest time.Time // sign of life of any worker
	for id := range s.workers {
		w := &s.workers[id]
		if w.state != Up {
			continue
		}
		report, queue := s.slots[w.slot].Read(), s.queued(id)
		idle := report.Beat == 0 && queue == 0 // of one that does not beat, nothing can be said then
		if report.Beat != w.last.Beat || report.Accepted != w.last.Accepted || idle {
			w.moved = now
		}
		busy = busy || report.Accepted != w.last.Accepted || queue > 0
		w.last, w.queue = report, queue
		if w.moved.After(latest) {
			latest = w.moved
		}
		w.lost = s.kernel.lost(id, w)
	}
	for id := range s.workers {
		w := &s.workers[id]
		// A machine on which nobody has moved is slow, not hung.
		hung := w.state == Up && latest.Sub(w.moved) > s.hungAfter
		if hung != w.hung && s.watcher != nil {
			watcher, changed[id] = s.watcher, hung
		}
		w.hung = hung
	}
	s.tell()
	return busy
}

// lost returns how many of the connections that were chosen for a worker it will never see: handshakes that did not
// end, or that were counted twice.
func (k *kernel) lost(id int, w *worker) uint32 {
	return atomic.LoadUint32(&k.workers[id].Chosen) - w.last.Accepted - uint32(w.queue)
}

// tell tells the program what has changed. It is called with mu locked.
func (s *Steering) tell() error {
	k := s.kernel
	var eligible []uint32
	load := 0.0
	for id := range s.workers {
		w := &s.workers[id]
		state := w.state
		if w.hung {
			state = Hung
		}
		to := &k.workers[id]
		if state != Up {
			atomic.StoreUint32(&to.State, uint32(state)) // before anything else changes
			continue
		}
		atomic.StoreUint32(&to.Lost, w.lost)
		atomic.StoreUint32(&to.Slot, uint32(w.slot))
		atomic.StoreUint32(&to.State, uint32(Up))
		eligible = append(eligible, uint32(id))
		load += float64(w.last.Open) + float64(w.queue)
	}
	if !slices.Equal(eligible, k.order) {
		for i, id := range eligible { // the program looks at a worker's state again, so a mixture does no harm
			if err := k.maps.Eligible.Put(uint32(i), id); err != nil {
				return err
			}
		}
		k.order = eligible
	}
	rule := plainRule{Bound: bound(s.epsilon, load, len(eligible)), Eligible: uint32(len(eligible))}
	if rule == k.rule {
		return nil
	}
	for cpu := range k.rules {
		atomic.StoreUint32(&k.rules[cpu].Bound, rule.Bound)
		atomic.StoreUint32(&k.rules[cpu].Eligible, rule.Eligible)
	}
	k.rule = rule
	return nil
}

// bound returns from which load on a local worker does not come first.
func bound(epsilon, load float64, workers int) uint32 {
	switch {
	case epsilon == 0:
		return 0
	case math.IsInf(epsilon, 1) || workers == 0:
		return math.MaxUint32
	}
	return uint32(min(math.Ceil((1+epsilon)*load/float64(workers))+slack, math.MaxUint32))
}
