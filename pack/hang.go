package pack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gopherpack/gopherpack/internal/proc"
)

// HangPolicy is what is done about a worker that hangs: one that was ready, has not beaten for HangTimeout since, and was not asked
// to end. A worker beats by a goroutine of its own, so a handler that computes or waits for long does not make it hang.
//
// A machine that was suspended is no reason, nor one that is so busy that the master is late itself. A worker whose threads wait
// for a CPU most of the time (Linux) gets three times as long, and so do all workers when they are late at once; when the first of
// these goes on, the others get half of HangTimeout to follow. A worker that is traced, as by a debugger, is left alone.
type HangPolicy int

const (
	// KillHung has the log tell of it, and the stack of every goroutine of the worker written to its stderr, if it is able to;
	// then it is killed, and replaced. A worker whose Probe fails, but which works otherwise, is asked to drain instead,
	// one at a time.
	KillHung HangPolicy = iota

	ReportHung // has the log tell of it, and others serve its queue
	IgnoreHung // does nothing
)

// stackTime is how long a worker may take to write its stack until it is killed.
const stackTime = 3 * time.Second

// pulse is what the master knows of whether a worker works. The times are of a clock that goes while the master itself does.
type pulse struct {
	beaten time.Duration // when the last sign of life came, or its silence was forgiven
	probed time.Duration // when its probe did not fail, or that was forgiven
	late   bool          // others serve its queue
	told   bool          // the log has told that it hangs, and something is done about it
	spared bool          // the log has told why it is left alone
	lateAt time.Duration // when it was found to be late; 0 if it is not
	times  proc.Times    // what it had of a CPU then
	vitals vitals
}

// verdict is how a worker is.
type verdict int

const (
	works  verdict = iota
	isLate         // it has been silent for half of the timeout
	unwell         // its probe has failed for all of it
	hangs          // it has been silent for all of it
)

// together is what all of several workers are at the same time, which tells of the machine, or of what they depend on.
type together struct{ late, ill bool }

// judge returns how workers are, of which it is known for how long each has been silent, and its probe has failed.
func judge(silent, failing []time.Duration, timeout time.Duration) (verdicts []verdict, all together) {
	late, ill := 0, 0
	for i := range silent {
		if silent[i] > timeout/2 {
			late++
		}
		if failing[i] > timeout/2 {
			ill++
		}
	}
	several := len(silent) > 1
	all = together{late: several && late == len(silent), ill: several && ill == len(silent)}
	limit := timeout
	if all.late {
		limit = 3 * timeout
	}
	for i := range silent {
		v := works
		switch {
		case silent[i] > limit:
			v = hangs
		case silent[i] > timeout/2 && several && !all.late:
			v = isLate
		case failing[i] > timeout && !all.ill:
			v = unwell
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, all
}

// begin has a worker watched from now on, whether it comes to its first beat or not. It is called with mu locked.
func (m *masterState) begin(l *workerLink) { l.pulse.beaten, l.pulse.probed = m.watched, m.watched }

// beat notes a sign of life of a worker.
func (m *masterState) beat(l *workerLink, v *vitals) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.pulse.beaten, l.pulse.lateAt = m.watched, 0
	if v != nil {
		l.pulse.vitals = *v
	}
	well := l.pulse.vitals.Probe == ""
	if well {
		l.pulse.probed = m.watched
	}
	if l.pulse.late || l.pulse.spared || l.pulse.told && well {
		l.pulse.late, l.pulse.spared, l.pulse.told = false, false, l.pulse.told && !well
		m.log.Info("worker goes on", "worker", l.process.ID, "pid", l.process.PID)
		m.serving()
	}
}

// watchWorkers looks at all workers again and again, until stop is called.
func (m *masterState) watchWorkers() (stop func()) {
	if m.config.Hang == IgnoreHung {
		return func() {}
	}
	interval, last := m.config.beatEvery(), time.Now()
	return every(interval, func(_ context.Context, now time.Time) {
		// What the master itself has missed does not count.
		m.lookAtWorkers(min(now.Sub(last), 2*interval))
		last = now
	})
}

// lookAtWorkers acts on what has become of the workers since the last look.
func (m *masterState) lookAtWorkers(passed time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watched += passed
	if m.stopping {
		return
	}
	var watched []*workerLink
	var silent, failing []time.Duration
	complete := m.current != nil && m.current.isUp()
	for _, l := range m.links {
		if l.stands() {
			watched = append(watched, l)
			silent = append(silent, m.watched-l.pulse.beaten)
			failing = append(failing, m.watched-l.pulse.probed)
		}
	}
	complete = complete && len(watched) >= m.current.plan.workers()
	verdicts, all := judge(silent, failing, m.config.HangTimeout)
	before := m.together
	m.together = all
	if all.late && !before.late {
		m.log.Warn("all workers are late: the machine is starved, or was suspended", "workers", len(watched))
	}
	switch { // where the first has recovered, the others have not had the time yet that it had
	case before.late && !all.late:
		m.forgiveSilence(watched...)
		return
	case before.ill && !all.ill:
		m.forgiveProbes(watched...)
		return
	}
	for i, l := range watched {
		m.heedVerdict(l, verdicts[i], silent[i], failing[i], complete)
	}
}

// forgiveSilence gives workers that are late half of the timeout from now, also to tell of their probe. It is called with mu
// locked.
func (m *masterState) forgiveSilence(late ...*workerLink) {
	for _, l := range late {
		l.pulse.beaten = max(l.pulse.beaten, m.watched-m.config.HangTimeout/2)
	}
	m.forgiveProbes(late...)
}

// forgiveProbes gives workers whose probe fails half of the timeout from now. It is called with mu locked.
func (m *masterState) forgiveProbes(ill ...*workerLink) {
	for _, l := range ill {
		l.pulse.probed = max(l.pulse.probed, m.watched-m.config.HangTimeout/2)
	}
}

// heedVerdict does what a verdict asks for. complete says that no worker is missing. It is called with mu locked.
func (m *masterState) heedVerdict(l *workerLink, v verdict, silent, failing time.Duration, complete bool) {
	p := l.process
	log := m.log.With("worker", p.ID, "pid", p.PID)
	if silent > m.config.HangTimeout/2 && l.pulse.lateAt == 0 {
		l.pulse.lateAt, l.pulse.times = m.watched, proc.ReadTimes(p.PID)
	}
	if v == isLate && !l.pulse.late {
		l.pulse.late = true
		log.Warn("worker is late, others serve its queue", "silent", silent.Round(time.Millisecond))
		m.serving()
	}
	if v < unwell || l.pulse.told {
		return
	}
	why := fmt.Errorf("hung: no sign of life for %v", silent.Round(time.Millisecond))
	state := ""
	if v == unwell {
		why = fmt.Errorf("hung: its probe has failed for %v: %s", failing.Round(time.Millisecond), l.pulse.vitals.Probe)
		if !complete && m.config.Hang == KillHung {
			return // one at a time
		}
	} else {
		state = proc.State(p.PID)
		if but := m.butWhy(l, state, silent); but != "" {
			if !l.pulse.spared {
				log.Warn("worker hangs, but "+but+": leaving it alone", "error", why)
			}
			l.pulse.spared = true
			if state == "traced" {
				m.forgiveSilence(l) // it also needs time when the debugger has gone
			}
			return
		}
	}
	l.pulse.told = true
	switch {
	case m.config.Hang == ReportHung:
		log.Error("worker hangs", "error", why, "state", state)
	case v == unwell:
		log.Error("worker hangs, replacing it", "error", why)
		go m.replaceUnwell(l)
	default:
		log.Error("worker hangs, killing it", "error", why, "state", state)
		go m.killHung(l, why)
	}
}

// butWhy returns why a silent worker is left alone for now, "" if it is not. It is called with mu locked.
func (m *masterState) butWhy(l *workerLink, state string, silent time.Duration) string {
	switch {
	case state == "traced" && m.config.Hang == KillHung:
		return "is traced, as by a debugger"
	case silent < 3*m.config.HangTimeout && proc.ReadTimes(l.process.PID).StarvedSince(l.pulse.times, m.watched-l.pulse.lateAt):
		return "waits for a CPU"
	}
	return ""
}

// killHung has a worker write its stack, which a Go program does at a signal that ends it, and kills it.
func (m *masterState) killHung(l *workerLink, why error) {
	l.process.Fail(why)
	for _, s := range stackSignals {
		if err := l.process.Signal(s); err != nil {
			return // it has ended
		}
	}
	time.Sleep(stackTime)
	l.process.Kill(why)
}

// replaceUnwell has a worker that works, but should not, write its stack and drain.
func (m *masterState) replaceUnwell(l *workerLink) {
	err := errors.Join(l.send(message{Type: msgStacks}), l.generation.group.Restart(l.process.ID))
	if err != nil {
		m.log.Debug("replace a worker", "worker", l.process.ID, "error", err)
	}
}
