// Package health judges which workers do not work, by when they gave a sign of life, what their probe says, and whether
// anybody takes from their queues. It is pure: it is told what happens, and how much time has passed.
//
// What tells of the machine, or of what all depend on, is nobody's fault: where all of several workers are late, or all
// of their probes fail, they get more time, and when the first has recovered the others get the time to follow.
package health

import (
	"time"

	"github.com/gopherpack/gopherpack/internal/proc"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// Verdict is how a worker is.
type Verdict int

const (
	Works  Verdict = iota
	Late           // others are to serve its queue
	Unwell         // its probe has failed for the timeout
	Hung           // it has given no sign of life for the timeout
)

// AllAtOnce is what all of several workers are at the same time.
type AllAtOnce struct{ Late, Ill bool }

// Judge returns how workers are, of which it is known for how long each has been silent, and its probe has failed.
func Judge(silent, failing []time.Duration, timeout time.Duration) (verdicts []Verdict, all AllAtOnce) {
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
	all = AllAtOnce{Late: several && late == len(silent), Ill: several && ill == len(silent)}
	limit := timeout
	if all.Late {
		limit = 3 * timeout
	}
	for i := range silent {
		v := Works
		switch {
		case silent[i] > limit:
			v = Hung
		case silent[i] > timeout/2 && several && !all.Late:
			v = Late
		case failing[i] > timeout && !all.Ill:
			v = Unwell
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, all
}

// Pulse is what is known of a worker. Times are of a clock that goes while the master itself runs.
type Pulse struct {
	beaten time.Duration // when the last sign of life came, or its silence was forgiven
	probed time.Duration // when its probe did not fail, or that was forgiven
	vitals wire.Vitals

	asked   bool          // for a sign of life, which has not come yet
	askedAt time.Duration // the last time

	queued   bool          // something was in its queue at the last look
	since    time.Duration // when that began, or it last took something
	waited   time.Duration // how much of the time since then was looked at
	accepted uint64        // by then
	reports  bool          // that is what it reports, not what came with its last sign of life

	late   bool // others serve its queue, as it is silent
	told   bool // something is done about it
	spared bool // it was told why it is left alone

	stalled      bool          // others serve its queue, as nobody took from it
	stalledSince time.Duration // since when nobody had
	stalledAt    time.Duration // when they began
	hold         time.Duration // for how long they do so at least
	answered     bool          // it gave a sign of life when it was asked for one before that
	works        bool          // it has shown since that it takes connections, or may
	warned       bool          // the log has told of it
	endedAt      time.Duration // when that last ended

	doubtedAt time.Duration // when it was found to be silent or ill, 0 if it is not
	times     proc.Times    // what it had of a CPU then
	timed     bool          // times is known, or was asked for
}

// Vitals returns what the worker last said of itself.
func (p *Pulse) Vitals() (v wire.Vitals) {
	if p != nil {
		v = p.vitals
	}
	return v
}

// Late reports whether others are to serve its queue. A nil Pulse is that of a worker that is not watched.
func (p *Pulse) Late() bool { return p != nil && (p.late || p.stalled) }

// Monitor watches workers. Its owner calls it from one goroutine.
type Monitor struct {
	Timeout time.Duration // Config.HangTimeout

	clock   time.Duration
	looked  time.Duration // when queues were
	workers map[roster.Ref]*Pulse
	all     AllAtOnce
}

// Begin has a worker watched from now on, whether it comes to a first beat or not, and returns what is known of it.
func (m *Monitor) Begin(r roster.Ref) *Pulse {
	if m.workers == nil {
		m.workers = map[roster.Ref]*Pulse{}
	}
	p := &Pulse{beaten: m.clock, probed: m.clock, endedAt: -again}
	m.workers[r] = p
	return p
}

// End forgets a worker.
func (m *Monitor) End(r roster.Ref) { delete(m.workers, r) }

// Beat notes a sign of life, and reports whether the worker goes on after it did not, and whether the log has told of
// that.
func (m *Monitor) Beat(r roster.Ref, v wire.Vitals) (goesOn, told bool) {
	p := m.workers[r]
	if p == nil {
		return false, false
	}
	silent := m.clock-p.beaten > m.Timeout/2
	p.beaten, p.asked = m.clock, false
	p.vitals = v
	well := v.Probe == ""
	if well {
		p.probed, p.doubtedAt, p.timed = m.clock, 0, false
	}
	if p.stalled {
		p.works = p.works || !p.answered || !p.reports && v.Accepted != p.accepted
		goesOn, told = m.recovers(p)
	}
	if p.late || p.spared && (well || silent) || p.told && well {
		p.late, p.spared, p.told = false, false, p.told && !well
		goesOn, told = true, true
	}
	return goesOn, told
}

// Kind is what is found of a worker.
type Kind int

const (
	Ask       Kind = iota // it is to give a sign of life
	IsStalled             // others are to serve its queue: nobody takes from it
	StaysSo               // it is stalled for so long that the log is to tell
	GoesOn                // it was stalled, and nobody needs to serve its queue any more
	IsLate                // others are to serve its queue: it gives no sign of life
	IsUnwell              // its probe has failed for too long
	IsHung                // it has given no sign of life for too long; see Monitor.Exemption
	AllLate               // all workers are late
)

// Finding is something to act on.
type Finding struct {
	Kind  Kind
	Ref   roster.Ref
	Since time.Duration // for how long that has been so
	Told  bool          // of GoesOn: the log has told that it was stalled
}

// Pass has time pass, in which the master ran.
func (m *Monitor) Pass(d time.Duration) { m.clock += d }

// Look returns what is to be done about the watched workers.
func (m *Monitor) Look(watched []roster.Ref) (found []Finding) {
	found = m.stalledOnes(watched)
	var pulses []*Pulse
	var refs []roster.Ref
	var silent, failing []time.Duration
	for _, r := range watched {
		if p := m.workers[r]; p != nil {
			pulses, refs = append(pulses, p), append(refs, r)
			silent, failing = append(silent, m.clock-p.beaten), append(failing, m.clock-p.probed)
		}
	}
	verdicts, all := Judge(silent, failing, m.Timeout)
	before := m.all
	m.all = all
	if all.Late && !before.Late {
		found = append(found, Finding{Kind: AllLate})
	}
	switch { // where the first has recovered, the others have not had the time yet that it had
	case before.Late && !all.Late:
		m.forgiveSilence(pulses...)
		return found
	case before.Ill && !all.Ill:
		m.forgiveProbes(pulses...)
		return found
	}
	healthy := 0
	for _, p := range pulses {
		if !p.Late() {
			healthy++
		}
	}
	for i, p := range pulses {
		if max(silent[i], failing[i]) > m.Timeout/2 && p.doubtedAt == 0 {
			p.doubtedAt = m.clock
		}
		v := verdicts[i]
		if v == Late && !p.late && (p.stalled || healthy > 1) {
			if !p.stalled {
				healthy--
			}
			p.late = true
			found = append(found, Finding{Kind: IsLate, Ref: refs[i], Since: silent[i]})
		}
		switch {
		case p.told:
		case v == Unwell:
			found = append(found, Finding{Kind: IsUnwell, Ref: refs[i], Since: failing[i]})
		case v == Hung:
			found = append(found, Finding{Kind: IsHung, Ref: refs[i], Since: silent[i]})
		}
	}
	return found
}

// forgiveSilence gives workers that are late half of the timeout from now, also to tell of their probe.
func (m *Monitor) forgiveSilence(late ...*Pulse) {
	for _, p := range late {
		p.beaten = max(p.beaten, m.clock-m.Timeout/2)
	}
	m.forgiveProbes(late...)
}

// forgiveProbes gives workers whose probe fails half of the timeout from now.
func (m *Monitor) forgiveProbes(ill ...*Pulse) {
	for _, p := range ill {
		p.probed = max(p.probed, m.clock-m.Timeout/2)
	}
}

// Doubted returns the workers that have just become silent or ill, of which Times is to be told what they have had of a
// CPU.
func (m *Monitor) Doubted() (refs []roster.Ref) {
	for r, p := range m.workers {
		if p.doubtedAt != 0 && !p.timed {
			p.timed = true
			refs = append(refs, r)
		}
	}
	return refs
}

// Times tells what a worker that is in doubt has had of a CPU until now.
func (m *Monitor) Times(r roster.Ref, t proc.Times) {
	if p := m.workers[r]; p != nil && p.doubtedAt != 0 {
		p.times, p.doubtedAt = t, m.clock
	}
}

// Exemption returns why a worker that is hung, or unwell for that long, is left alone for now, "" if it is not, and
// whether it was not told before. state and now are what the kernel tells of its process. kill says that it is to be
// killed otherwise.
func (m *Monitor) Exemption(r roster.Ref, since time.Duration, state string, now proc.Times, kill bool) (
	why string, first bool,
) {
	p := m.workers[r]
	if p == nil {
		return "is gone", false
	}
	switch {
	case state == "traced" && kill:
		why = "is traced, as by a debugger"
		m.forgiveSilence(p) // it also needs time when the debugger has gone
	case since < 3*m.Timeout && p.timed && now.StarvedSince(p.times, m.clock-p.doubtedAt):
		why = "waits for a CPU"
	default:
		return "", false
	}
	first = !p.spared
	p.spared = true
	return why, first
}

// Silence returns for how long a worker has given no sign of life.
func (m *Monitor) Silence(r roster.Ref) time.Duration {
	if p := m.workers[r]; p != nil {
		return m.clock - p.beaten
	}
	return 0
}

// Illness returns for how long the probe of a worker has failed.
func (m *Monitor) Illness(r roster.Ref) time.Duration {
	if p := m.workers[r]; p != nil {
		return m.clock - p.probed
	}
	return 0
}

// Told notes that something is done about a worker, and reports whether that is new.
func (m *Monitor) Told(r roster.Ref) (first bool) {
	p := m.workers[r]
	if p == nil || p.told {
		return false
	}
	p.told = true
	return true
}
