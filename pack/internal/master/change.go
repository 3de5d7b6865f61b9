package master

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// kind is what a change is for.
type kind int

const (
	reloading kind = iota
	upgrading
	scaling
	placing  // the CPUs that the pack may use have changed
	renewing // the only worker is to be replaced
)

func (k kind) String() string {
	return [...]string{"reload", "upgrade", "scaling", "placement", "reload"}[k]
}

// phase is how far a change has come. Until replacing the old workers are whole, and all that goes wrong leads back to
// them.
type phase int

const (
	settling    phase = iota // Rolling: workers that an earlier change has replaced are to be gone
	preparing                // a hand finds out what the next generation is to be
	growing                  // sockets for more workers are being opened
	launching                // the next generation starts, or with Rolling the next of its workers
	proving                  // and is to serve for MinReady
	retiring                 // Rolling: the old worker in the place of a new one drains
	freezing                 // upgrade: nobody is to listen to workers
	executing                // upgrade: this program is being replaced
	replacing                // the next generation is the current one; the kernel is told to choose its sockets
	drainingOut              // sockets that are one too many are served until nothing comes to them
	goingBack                // Rolling: old workers take the places of new ones again
)

// change replaces the workers by others: a reload, an upgrade, another number of them. There is one at a time.
type change struct {
	number    int
	kind      kind
	phase     phase
	begun     time.Time
	old, next *generation
	spec      spec // of the next generation
	workers   int  // scaling: how many there are to be
	cpus      cpusChanged
	reply     reply
	sockets   bool  // some may have been opened
	err       error // why it failed
	step      int   // Rolling: which worker it is at
	oneByOne  bool  // Rolling: old workers drain one by one
	told      bool  // Rolling: the group of the one that does starts it no more
	asked     bool  // the hand that the phase waits for was asked
	steps     []step
	loans     map[loan]*lent
	handsBack bool // this program hands back to the one before it
}

func (c *core) start(ch *change) {
	ch.old = c.current
	c.adopt(ch)
	if c.Rolling && len(c.generations) > 1 {
		ch.phase = settling
		return
	}
	c.prepare(ch)
}

// adopt makes a change the one that goes on.
func (c *core) adopt(ch *change) {
	c.changes++
	ch.number = c.changes
	c.change = ch
}

// prepare finds out what the next generation is to be.
func (c *core) prepare(ch *change) {
	ch.phase = preparing
	switch ch.kind {
	case reloading, renewing:
		ch.spec = spec{plan: ch.old.plan, user: ch.old.user}
		c.grow(ch)
	case scaling:
		if err := plan.Check(ch.workers); err != nil {
			c.abort(err)
			return
		}
		c.emit(makePlan{ch.number, ch.workers})
	case placing:
		c.emit(makePlan{ch.number, c.scaled})
	case upgrading:
		if !c.CanUpgrade {
			c.abort(fmt.Errorf("this system cannot upgrade a pack in place: %w", errors.ErrUnsupported))
			return
		}
		c.emit(openImage{ch.number})
	}
}

// report goes on with what a hand has found out.
func (c *core) report(e event) {
	ch := c.change
	switch e := e.(type) {
	case released:
		c.released()
		return
	case execFailed:
		c.execFailed(e)
		return
	case grown:
		c.grown(e)
		return
	case directed:
		if ch != nil && ch.phase == replacing {
			c.directed(ch, e.err)
		}
		return
	}
	prepares := func(change int) bool { return ch != nil && ch.number == change && ch.phase == preparing }
	switch e := e.(type) {
	case planned:
		if prepares(e.change) {
			c.planned(ch, e)
		}
	case imageOpened:
		switch {
		case !prepares(e.change):
			c.emit(dropImage{e.change})
		case e.err != nil:
			c.abort(e.err)
		default:
			c.log(slog.LevelInfo, "upgrading", "executable", e.name)
			if c.OnUpgrade {
				c.emit(runHook{onUpgrade, ch.number})
			} else {
				c.fly()
			}
		}
	case hooked:
		switch {
		case !prepares(e.change):
		case e.err != nil:
			c.abort(fmt.Errorf("OnUpgrade: %w", e.err))
		default:
			c.fly()
		}
	case preflown:
		switch {
		case !prepares(e.change):
		case e.err != nil:
			c.abort(e.err)
		default:
			ch.spec = e.spec
			c.grow(ch)
		}
	}
}

// fly has the new executable show that it can be the master.
func (c *core) fly() {
	question := handoff.Question{Version: handoff.Version, Protocol: wire.Version, Workers: c.scaled, Master: c.PID}
	c.emit(atStep{StepPreflight}, preflight{c.change.number, question})
}

func (c *core) planned(ch *change, e planned) {
	if ch.kind == placing {
		args := []any{"from", ch.cpus.from, "to", ch.cpus.to}
		if e.err != nil {
			c.log(slog.LevelError, "the CPUs that this process may use have changed, the workers stay where they are",
				append(args, "error", e.err)...)
		}
		if e.err != nil || e.plan.Equal(ch.old.plan) {
			c.change = nil
			return
		}
		c.log(slog.LevelInfo, "the CPUs that this process may use have changed", args...)
	}
	if e.err != nil {
		c.abort(e.err)
		return
	}
	ch.spec = spec{plan: e.plan, user: ch.old.user}
	c.grow(ch)
}

// grow has sockets opened for workers that are more than before. Nothing comes to them before directSockets.
func (c *core) grow(ch *change) {
	c.makeRoom()
	ch.phase, ch.sockets = growing, true
	c.emit(growSockets{ch.number, ch.spec.plan.Workers(), c.steeredEndpoints()})
}

func (c *core) grown(e grown) {
	for _, r := range e.renewed {
		c.renewed(r)
	}
	if e.err == nil {
		for at, known := range c.endpoints {
			if known.sockets > 0 && !known.shared {
				known.sockets = max(known.sockets, e.workers)
			}
			known.address = cmp.Or(e.addresses[at], known.address)
		}
	}
	ch := c.change
	switch {
	case ch == nil || !ch.sockets: // what it was for was given up meanwhile
		c.shrink()
		c.closeUnused()
	case ch.number != e.change: // likewise; this one shrinks when it ends
	case e.err != nil:
		c.abort(e.err)
	default:
		c.launchNext(ch)
	}
}

// launchNext starts the workers that are to replace the old ones.
func (c *core) launchNext(ch *change) {
	ch.next = c.launch(ch.spec, c.Rolling)
	n := ch.next.plan.Workers()
	switch ch.kind {
	case reloading, renewing:
		c.log(slog.LevelInfo, "reloading", "generation", ch.next.number)
	case upgrading:
		c.log(slog.LevelInfo, "new workers are starting", "generation", ch.next.number, "workers", n)
	case scaling:
		c.log(slog.LevelInfo, "changing the number of workers", "generation", ch.next.number,
			"from", ch.old.plan.Workers(), "to", n)
	case placing:
		c.log(slog.LevelInfo, "placing the workers anew", "generation", ch.next.number,
			"workers", n, "cpus", ch.next.plan.All())
	}
	c.emit(atStep{StepLaunched})
	ch.phase, ch.oneByOne = launching, true
	if ch.next.held {
		c.emit(startMember{ch.next.number, 0})
	}
}

// makeRoom kills the oldest generations that still drain, if with one more there would be too many.
func (c *core) makeRoom() {
	for i := 0; len(c.generations)-i >= c.MaxGenerations; i++ {
		if g := c.generations[i]; g != c.current {
			c.log(slog.LevelWarn, "too many generations, killing the oldest", "generation", g.number, "max", c.MaxGenerations)
			c.emit(killGeneration{g.number})
		}
	}
}
