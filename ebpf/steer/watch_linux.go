package steer

import (
	"math"
	"slices"
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

// look reads what workers report, and tells the program what has become of it. It reports whether there is anything to do
// for them.
func (s *Steering) look(now time.Time) (busy bool) {
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
		w.lost = s.kernel.lost(w)
	}
	for id := range s.workers {
		w := &s.workers[id]
		// A machine on which nobody has moved is slow, not hung.
		w.hung = w.state == Up && latest.Sub(w.moved) > s.hungAfter
	}
	s.tell()
	return busy
}

// lost returns how many of the connections that were chosen for a worker it will never see: handshakes that did not end,
// or that were counted twice.
func (k *kernel) lost(w *worker) uint32 {
	var t plainTally
	if k.maps.Chosen.Lookup(uint32(w.slot), &t) != nil {
		return 0
	}
	return t.All - w.last.Accepted - uint32(w.queue)
}

// tell tells the program what has changed. It is called with mu locked.
func (s *Steering) tell() error {
	k := s.kernel
	var eligible []uint32
	load, up := 0.0, 0
	for id := range s.workers {
		w := &s.workers[id]
		now := plainWorker{State: uint32(w.state), Lost: w.lost}
		if w.slot >= 0 {
			now.Slot = uint32(w.slot)
		}
		switch {
		case w.hung:
			now.State = uint32(Hung)
		case w.state == Up:
			eligible = append(eligible, uint32(id))
			load += float64(w.last.Open) + float64(w.queue)
			up++
		}
		if now == k.workers[id] {
			continue
		}
		if err := k.maps.Workers.Put(uint32(id), now); err != nil {
			return err
		}
		k.workers[id] = now
	}
	if !slices.Equal(eligible, k.order) {
		for i, id := range eligible { // the program looks at a worker's state again, so a mixture does no harm
			if err := k.maps.Eligible.Put(uint32(i), id); err != nil {
				return err
			}
		}
		k.order = eligible
	}
	rules := plainRules{Bound: bound(s.epsilon, load, up), Eligible: uint32(len(eligible))}
	if s.epsilon > 0 {
		rules.Local = 1
	}
	if rules != k.rules {
		if err := k.maps.RulesMap.Put(uint32(0), rules); err != nil {
			return err
		}
		k.rules = rules
	}
	return nil
}

// bound returns up to which load a local worker comes first.
func bound(epsilon, load float64, workers int) uint32 {
	if math.IsInf(epsilon, 1) || workers == 0 {
		return math.MaxUint32
	}
	return uint32(min(math.Ceil((1+epsilon)*load/float64(workers))+slack, math.MaxUint32))
}
