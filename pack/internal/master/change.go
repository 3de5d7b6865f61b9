package master

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
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

// phase is how far a change has come. Until replacing the old workers are whole, and all that goes wrong leads back to them.
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
	kind      kind
	phase     phase
	begun     time.Time
	old, next *generation
	spec      spec // of the next generation
	workers   int  // scaling: how many there are to be
	cpus      cpusChanged
	reply     reply
	image     bool  // the new executable is open
	sockets   bool  // some may have been opened
	err       error // why it failed
	step      int   // Rolling: which worker it is at
	oneByOne  bool  // Rolling: old workers drain one by one
	asked     bool  // the hand that the phase waits for was asked
	steps     []step
	loans     map[loan]*lent
	handsBack bool // this program hands back to the one before it
}

// errInProgress is why a change is refused during another.
var errInProgress = errors.New("a reload or an upgrade is in progress")

// refused reports why no change may begin now.
func (c *core) refused() error {
	switch {
	case c.stage >= leaving:
		return errors.New("the pack is stopping")
	case c.stage < running || c.current == nil || !c.current.up:
		return errors.New("the pack is not up yet")
	case c.change != nil || c.frozen || c.detached > 0:
		return errInProgress
	}
	return nil
}

// wanted begins a change. If it may not begin now, a call is refused, and a signal's wish is done afterwards.
func (c *core) wanted(e event) {
	ch := &change{begun: c.now}
	wish := handoff.Wish{}
	switch e := e.(type) {
	case reload:
		ch.kind, ch.reply, wish.Reload = reloading, e.reply, true
	case upgradeTo:
		ch.kind, ch.reply, wish.Upgrade = upgrading, e.reply, true
	case scale:
		ch.kind, ch.reply, ch.workers, wish.Workers = scaling, e.reply, e.to, e.by
		if e.to == 0 && c.current != nil {
			ch.workers = c.current.plan.Workers() + e.by
		}
	case cpusChanged:
		ch.kind, ch.cpus = placing, e
	}
	err := c.refused()
	switch {
	case err == nil:
		c.start(ch)
	case c.stage >= leaving || ch.reply != nil:
		if ch.kind != placing {
			c.log(slog.LevelWarn, ch.kind.String()+" refused", "reason", err)
		}
		ch.reply.send(fmt.Errorf("%v: %w", ch.kind, err))
	case ch.kind == placing:
		c.moved = &ch.cpus
	default:
		before := c.wish
		c.wish.Reload, c.wish.Upgrade = c.wish.Reload || wish.Reload, c.wish.Upgrade || wish.Upgrade
		c.wish.Workers += wish.Workers
		if c.wish != before {
			c.log(slog.LevelInfo, ch.kind.String()+" will follow", "reason", err)
		}
	}
}

// nextWish begins a change that was asked for during another, and reports whether there was one. One change serves all wishes
// that it can: all replace the workers.
func (c *core) nextWish() bool {
	if c.refused() != nil {
		return false
	}
	w := c.wish
	c.wish = handoff.Wish{Workers: w.Workers}
	switch {
	case w.Upgrade:
		c.start(&change{kind: upgrading, begun: c.now})
	case w.Workers != 0:
		c.wish = handoff.Wish{}
		c.start(&change{kind: scaling, begun: c.now, workers: c.current.plan.Workers() + w.Workers})
	case w.Reload:
		c.start(&change{kind: reloading, begun: c.now})
	case c.moved != nil:
		ch := &change{kind: placing, begun: c.now, cpus: *c.moved}
		c.moved = nil
		c.start(ch)
	default:
		return false
	}
	return true
}

func (c *core) start(ch *change) {
	ch.old = c.current
	c.change = ch
	if c.Rolling && len(c.generations) > 1 {
		ch.phase = settling
		return
	}
	c.prepare(ch)
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
		c.emit(makePlan{ch.workers})
	case placing:
		c.emit(makePlan{c.scaled})
	case upgrading:
		if !c.CanUpgrade {
			c.abort(fmt.Errorf("this system cannot upgrade a pack in place: %w", errors.ErrUnsupported))
			return
		}
		c.emit(openImage{})
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
		if ch != nil && ch.phase == growing {
			c.grown(ch, e.err)
		} else if e.err == nil && c.current != nil && c.stage < leaving { // it was given up meanwhile
			c.emit(shrinkSockets{c.current.plan.Workers()})
		}
		return
	case directed:
		if ch != nil && ch.phase == replacing {
			c.directed(ch, e.err)
		}
		return
	}
	if ch == nil || ch.phase != preparing {
		if _, ok := e.(imageOpened); ok {
			c.emit(dropImage{})
		}
		return // it was given up meanwhile
	}
	switch e := e.(type) {
	case planned:
		c.planned(ch, e)
	case imageOpened:
		if e.err != nil {
			c.abort(e.err)
			return
		}
		ch.image = true
		c.log(slog.LevelInfo, "upgrading", "executable", e.name)
		if c.OnUpgrade {
			c.emit(runHook{onUpgrade})
		} else {
			c.fly()
		}
	case hooked:
		if e.err != nil {
			c.abort(fmt.Errorf("OnUpgrade: %w", e.err))
			return
		}
		c.fly()
	case preflown:
		if e.err != nil {
			c.abort(e.err)
			return
		}
		ch.spec = e.spec
		c.grow(ch)
	}
}

// fly has the new executable show that it can be the master.
func (c *core) fly() {
	c.emit(atStep{StepPreflight}, preflight{handoff.Question{Version: handoff.Version, Protocol: wire.Version, Workers: c.scaled}})
}

func (c *core) planned(ch *change, e planned) {
	if ch.kind == placing {
		args := []any{"from", ch.cpus.from, "to", ch.cpus.to}
		if e.err != nil {
			c.log(slog.LevelError, "the CPUs that this process may use have changed, the workers stay where they are", append(args, "error", e.err)...)
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
	c.emit(growSockets{ch.spec.plan.Workers(), c.steeredEndpoints()})
}

func (c *core) grown(ch *change, err error) {
	if err != nil {
		c.abort(err)
		return
	}
	for _, known := range c.endpoints {
		if known.sockets > 0 && !known.shared {
			known.sockets = max(known.sockets, ch.spec.plan.Workers())
		}
	}
	ch.next = c.launch(ch.spec, c.Rolling)
	n := ch.next.plan.Workers()
	switch ch.kind {
	case reloading, renewing:
		c.log(slog.LevelInfo, "reloading", "generation", ch.next.number)
	case upgrading:
		c.log(slog.LevelInfo, "new workers are starting", "generation", ch.next.number, "workers", n)
	case scaling:
		c.log(slog.LevelInfo, "changing the number of workers", "generation", ch.next.number, "from", ch.old.plan.Workers(), "to", n)
	case placing:
		c.log(slog.LevelInfo, "placing the workers anew", "generation", ch.next.number, "workers", n, "cpus", ch.next.plan.All())
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

// advance goes on with the change, or the stop, if what it waits for has come true, and reports whether it has.
func (c *core) advance() bool {
	switch {
	case c.stage == leaving || c.stage == stopping:
		return c.advanceStop()
	case c.stage != running:
		return false
	case c.change == nil:
		return c.nextWish() || c.renewOne()
	}
	switch ch := c.change; ch.phase {
	case settling:
		if len(c.generations) > 1 {
			return false
		}
		c.prepare(ch)
	case launching:
		if ch.next.held && !c.serves(ch.next, ch.step) || !ch.next.held && !ch.next.up {
			return false
		}
		ch.phase = proving
		c.emit(atStep{StepReady})
		c.set(changeTimer, c.MinReady)
	case retiring:
		if ch.old.members[ch.step].pid != 0 {
			return false
		}
		c.log(slog.LevelInfo, "worker replaced", "worker", ch.step, "generation", ch.next.number)
		c.nextStep(ch)
	case replacing:
		if ch.asked || c.steeringSettles() {
			return false
		}
		ch.asked = true
		c.emit(directSockets{ch.next.plan.Workers(), c.steeredEndpoints()})
	case drainingOut:
		if len(ch.loans) > 0 {
			return false
		}
		c.shrink()
		c.endChange()
	case goingBack:
		return c.stepBack(ch)
	default:
		return false
	}
	return true
}

// serves reports whether a worker of a generation accepts.
func (c *core) serves(g *generation, id int) bool {
	w := c.workers[g.members[id].ref]
	return w != nil && w.state == wire.Serving
}

// changeDue acts on a phase that has lasted long enough, or too long.
func (c *core) changeDue() {
	ch := c.change
	if ch == nil {
		return
	}
	switch ch.phase {
	case proving:
		c.proven(ch)
	case drainingOut:
		c.lendLate(ch)
	case goingBack:
		c.backLate(ch)
	}
}

// proven goes on when a generation, or with Rolling one of its workers, has proven itself.
func (c *core) proven(ch *change) {
	if !ch.next.held {
		c.succeed(ch)
		return
	}
	ch.next.inPlace[ch.step] = true
	c.changed()
	if ch.step == 0 && !maps.Equal(ch.old.uses, ch.next.uses) {
		ch.oneByOne = false
		c.log(slog.LevelWarn, "other addresses are served than before: all old workers go on until all new ones are ready")
	}
	if ch.oneByOne && ch.step < ch.old.plan.Workers()-1 {
		ch.phase = retiring
		c.emit(stopMember{ch.old.number, ch.step})
		return
	}
	c.nextStep(ch)
}

// nextStep starts the next worker. The last of the old ones stays until the change is certain.
func (c *core) nextStep(ch *change) {
	ch.step++
	if ch.step == ch.next.plan.Workers() {
		c.succeed(ch)
		return
	}
	ch.phase = launching
	c.emit(startMember{ch.next.number, ch.step})
}

// succeed goes on when the next generation has proven itself.
func (c *core) succeed(ch *change) {
	if ch.kind == upgrading {
		c.freeze()
		return
	}
	c.replace()
}

// changeFails gives up the change if it waits for a generation that has failed.
func (c *core) changeFails(g *generation, err error, wasReady bool) {
	ch := c.change
	if ch == nil || ch.next != g || ch.err != nil || c.stage >= leaving {
		return
	}
	switch {
	case ch.phase == proving:
		err = fmt.Errorf("a new worker failed within %v of being ready: %w", c.MinReady, err)
	case ch.phase != launching && ch.phase != retiring:
		return
	case !wasReady:
		err = startError(&procStartError{Err: err})
	case g.held:
		err = fmt.Errorf("a new worker failed while others were replaced: %w", err)
	}
	c.abort(err)
}

// abort gives up the change because of why, and goes back to where it began.
func (c *core) abort(why error) {
	ch := c.change
	ch.err = why
	delete(c.timers, changeTimer)
	if ch.next != nil {
		c.goBack(ch)
		return
	}
	if ch.sockets {
		c.shrink()
	}
	c.endChange()
}

// shrink closes sockets that the current generation has no workers for.
func (c *core) shrink() {
	if c.current == nil || c.stage >= leaving {
		return // the end closes them all
	}
	n, more := c.current.plan.Workers(), false
	for _, known := range c.endpoints {
		if !known.shared && known.sockets > n {
			known.sockets, more = n, true
		}
	}
	if more {
		c.emit(shrinkSockets{n})
	}
}

// endChange ends the change. It is over before the log tells so, since whoever reads that may ask for the next.
func (c *core) endChange() {
	ch := c.change
	c.change = nil
	delete(c.timers, changeTimer)
	if ch.image || ch.kind == upgrading {
		c.emit(dropImage{})
	}
	if ch.err != nil {
		c.log(slog.LevelError, ch.kind.String()+" failed, the old workers go on", "error", ch.err, "generation", ch.old.number)
		ch.reply.send(fmt.Errorf("%v: %w", ch.kind, ch.err))
		return
	}
	g, took := ch.next, c.now.Sub(ch.begun).Round(time.Millisecond)
	args := []any{"generation", g.number, "workers", g.plan.Workers(), "took", took}
	switch ch.kind {
	case reloading, renewing:
		c.log(slog.LevelInfo, "reloaded", args...)
	case upgrading:
		c.log(slog.LevelInfo, "upgraded", append([]any{"pid", c.PID, "listening", c.addresses()}, args...)...)
	case scaling:
		c.scaled = g.plan.Workers()
		c.log(slog.LevelInfo, "number of workers changed", args...)
	case placing:
		c.log(slog.LevelInfo, "workers placed", args...)
	}
	ch.reply.send(nil)
}

// replace makes the next generation the current one, and has the others drain.
func (c *core) replace() {
	ch := c.change
	ch.phase, ch.asked = replacing, false
	c.current = ch.next
	c.changed()
	if c.Steered && c.steering != steeringOff && c.steeredAmong != ch.next.plan.Workers() {
		c.beginSteering(ch.next.spec)
	}
	for _, g := range c.generations {
		for _, e := range g.usesMoreThan(ch.next) {
			c.emit(quiesceEndpoint{e})
		}
	}
}

func (c *core) directed(ch *change, err error) {
	if err != nil {
		c.log(slog.LevelError, "connections still go to the sockets of removed workers", "error", err)
	}
	for _, g := range slices.Clone(c.generations) {
		if g != c.current {
			c.stopGeneration(g)
		}
	}
	c.emit(atStep{StepReplaced})
	c.changed()
	ch.phase, ch.loans = drainingOut, map[loan]*lent{}
	for _, e := range c.open() {
		for i := ch.next.plan.Workers(); !c.endpoints[e].shared && i < c.endpoints[e].sockets; i++ {
			ch.loans[loan{e, i}] = &lent{}
			c.lend(loan{e, i})
		}
	}
}

// lent is a socket that is one too many.
type lent struct {
	by    roster.Ref
	tries int
	until time.Time
}

const (
	lendLimit = 10 * time.Second // for the queue of a socket to be empty for a while
	lendTries = 3
)

// lend has some worker serve a socket that is one too many until nobody connects to it any more.
func (c *core) lend(what loan) {
	ch := c.change
	l := ch.loans[what]
	if l.tries++; l.tries > lendTries {
		delete(ch.loans, what)
		return
	}
	if c.dirty {
		c.reconcile()
	}
	l.until = c.now.Add(lendLimit)
	if at, ok := c.timers[changeTimer]; !ok || at.After(l.until) {
		c.timers[changeTimer] = l.until
	}
	l.by = c.taker(roster.Ref{Generation: -1, ID: what.socket % len(c.wishes)}, what.endpoint)
	if w := c.workers[l.by]; w != nil {
		w.draining[what] = true
		c.emit(send{
			ref: l.by, msg: wire.Message{Type: wire.DrainSocket, Endpoint: &what.endpoint, Socket: what.socket},
			socket: &sockets.Ref{Endpoint: what.endpoint, Socket: what.socket},
		})
	}
}

// lendAgain has another worker serve a socket that the one that was to does not serve.
func (c *core) lendAgain(what loan) {
	if ch := c.change; ch != nil && ch.phase == drainingOut && ch.loans[what] != nil {
		c.log(slog.LevelWarn, "a removed worker's socket is not served yet", "endpoint", what.endpoint.String(), "socket", what.socket)
		c.lend(what)
	}
}

// lendLate gives sockets to others that have not become empty in time.
func (c *core) lendLate(ch *change) {
	for _, what := range slices.SortedFunc(maps.Keys(ch.loans), func(a, b loan) int { return a.socket - b.socket }) {
		if l := ch.loans[what]; l != nil && !c.now.Before(l.until) {
			c.lendAgain(what)
		}
	}
	for _, l := range ch.loans {
		if at, ok := c.timers[changeTimer]; !ok || l.until.Before(at) {
			c.timers[changeTimer] = l.until
		}
	}
}

// socketDrained notes that nothing comes to a socket any more that is one too many.
func (c *core) socketDrained(w *worker, what loan) {
	if !w.draining[what] {
		c.violates(w, fmt.Errorf("%s of a socket that it was not told to serve", wire.Drained))
		return
	}
	delete(w.draining, what)
	if c.change != nil {
		delete(c.change.loans, what)
	}
}
