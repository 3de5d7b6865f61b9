package worker

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
)

// shortage is a time in which connections cannot always be accepted for want of descriptors or memory. They stay in
// the queue meanwhile. At the limit, each connection that is closed lets one more in, so a shortage is over only when
// it has not been felt for a while: one line in the log when it begins, one when it ends.
type shortage struct {
	begins func(error)
	ends   func(after time.Duration)

	mu    sync.Mutex
	since time.Time     // zero if there is none
	delay time.Duration // before the next try
	calm  *time.Timer   // ends it
}

const (
	shortageMin  = 5 * time.Millisecond
	shortageMax  = time.Second
	shortageCalm = 2 * shortageMax
)

// isShortage reports whether what failed may succeed later, when something else was closed, or received.
func isShortage(err error) bool {
	return fdmsg.AreTooMany(err) || isAny(err, shortages)
}

// isAbort reports whether nothing came of an Accept, and the next is to be tried at once.
func isAbort(err error) bool { return isAny(err, aborts) }

func isAny(err error, errs []error) bool {
	return slices.ContainsFunc(errs, func(e error) bool { return errors.Is(err, e) })
}

// wait notes that a shortage is felt, and waits a while: longer each time, and not longer than until ended is closed or
// woken is told something.
func (s *shortage) wait(err error, ended, woken <-chan struct{}) {
	timer := time.NewTimer(s.feel(err))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ended:
	case <-woken:
	}
}

// feel notes that a shortage is felt, and returns when to try again.
func (s *shortage) feel(err error) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		s.since = time.Now()
		s.begins(err)
	}
	if s.calm == nil {
		s.calm = time.AfterFunc(shortageCalm, s.calmed)
	} else {
		s.calm.Reset(shortageCalm)
	}
	s.delay = min(max(2*s.delay, shortageMin), shortageMax)
	return s.delay
}

// calmed ends a shortage.
func (s *shortage) calmed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return
	}
	s.ends(time.Since(s.since) - shortageCalm)
	s.since = time.Time{}
}

// relax makes the next delay a short one.
func (s *shortage) relax() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = 0
}

// forget ends a shortage without a word.
func (s *shortage) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Time{}
	if s.calm != nil {
		s.calm.Stop()
	}
}
