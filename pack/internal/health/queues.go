package health

import (
	"time"

	"github.com/gopherpack/gopherpack/internal/scoreboard"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
)

const (
	// Look is how often queues are looked at while connections come.
	Look = 25 * time.Millisecond

	// prompt is for how long a worker that reports what it takes may take nothing from its queue, with something in it
	// at every look, until others serve it. Of a look that comes late only Look counts: then the master waits, too.
	prompt = 2 * Look

	// stalled is after how long the log tells of it. Others serve the queue of a worker that does not report only then:
	// it is long enough for one that is asked for a sign of life to give one on a busy machine.
	stalled = 600 * time.Millisecond

	// askEvery is how often a worker is asked, if it answers, and has taken nothing, or does not report what it takes.
	askEvery = 200 * time.Millisecond

	// A worker that needs others to serve its queue again so soon has them do it for a while: for hold, and for twice
	// as long each time, up to retry.
	again = time.Second
	hold  = 100 * time.Millisecond
	retry = 5 * time.Second
)

// recovers has nobody serve the queue of a stalled worker any more, if it has shown that it works, and reports whether
// that is so, and whether the log has told of it.
func (m *Monitor) recovers(p *Pulse) (is, told bool) {
	if !p.works || m.clock-p.stalledAt < p.hold {
		return false, false
	}
	told = p.warned
	p.stalled, p.warned, p.queued, p.waited, p.endedAt = false, false, false, 0, m.clock
	return true, told
}

// Queues notes for which of the watched workers connections wait, in their own queues or in those that they serve for
// others, and what those have taken that report it, and returns what follows. It is called every Look while connections
// wait, or the reports change.
func (m *Monitor) Queues(
	watched []roster.Ref, waiting map[roster.Ref]bool, reports map[roster.Ref]scoreboard.Report,
) (found []Finding) {
	passed := min(m.clock-m.looked, Look)
	m.looked = m.clock
	var suspects []roster.Ref
	healthy := false
	for _, r := range watched {
		p := m.workers[r]
		if p == nil {
			continue
		}
		report, does := reports[r]
		m.note(p, waiting[r], report, does, passed)
		switch {
		case p.Late():
		case p.waited < Look:
			healthy = true
		default:
			if p.isStalled(m.clock) {
				suspects = append(suspects, r)
				p.answered = !p.asked && p.askedAt > p.since
			}
			if !p.asked && (p.reports && p.askedAt < p.since || m.clock-p.askedAt >= askEvery) {
				p.asked, p.askedAt = true, m.clock
				found = append(found, Finding{Kind: Ask, Ref: r})
			}
		}
	}
	if healthy { // else nobody could serve their queues
		for _, r := range suspects {
			found = append(found, m.stall(r))
		}
	}
	return append(found, m.stalledOnes(watched)...)
}

// note notes what a look at the queue of a worker has found.
func (m *Monitor) note(p *Pulse, waits bool, report scoreboard.Report, reports bool, passed time.Duration) {
	accepted := p.vitals.Accepted
	if reports {
		accepted = uint64(report.Accepted)
	}
	took := reports == p.reports && accepted != p.accepted
	p.accepted, p.reports = accepted, reports
	switch {
	case !waits:
		p.queued, p.waited = false, 0
	case !p.queued || took:
		p.queued, p.since, p.waited = true, m.clock, 0
	default:
		p.waited += passed
	}
	// One that had answered takes nothing on purpose, or was slow: others have served what it left, it may try again.
	p.works = p.works || took || p.answered && !waits
}

// isStalled reports whether nobody has taken from a worker's queue for too long.
func (p *Pulse) isStalled(now time.Duration) bool {
	if p.reports {
		return p.waited >= prompt
	}
	return now-p.since >= stalled
}

// stall has others serve the queue of a worker.
func (m *Monitor) stall(r roster.Ref) Finding {
	p := m.workers[r]
	switch {
	case m.clock-p.endedAt >= again:
		p.hold = 0
	case p.hold == 0:
		p.hold = hold
	default:
		p.hold = min(2*p.hold, retry)
	}
	p.stalled, p.stalledAt, p.stalledSince, p.works = true, m.clock, p.since, false
	return Finding{Kind: IsStalled, Ref: r, Since: m.clock - p.since}
}

// stalledOnes returns what has become of the workers that are stalled.
func (m *Monitor) stalledOnes(watched []roster.Ref) (found []Finding) {
	for _, r := range watched {
		p := m.workers[r]
		if p == nil || !p.stalled {
			continue
		}
		since := m.clock - p.stalledSince
		if goesOn, told := m.recovers(p); goesOn {
			found = append(found, Finding{Kind: GoesOn, Ref: r, Since: since, Told: told})
		} else if !p.works && !p.warned && since >= stalled {
			p.warned = true
			found = append(found, Finding{Kind: StaysSo, Ref: r, Since: since})
		}
	}
	return found
}
