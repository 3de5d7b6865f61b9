package master

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// loan is a socket that a worker serves though it is not its own.
type loan struct {
	endpoint wire.Endpoint
	socket   int // whose it is: the worker ID
}

// reconcile brings who serves which socket to what it is to be. What that is, roster.Want alone decides.
func (c *core) reconcile() {
	c.dirty = false
	if c.current == nil {
		return
	}
	n := c.current.plan.Workers()
	c.facts = c.facts[:0]
	for _, w := range c.order {
		c.facts = append(c.facts, roster.Fact{
			Ref: w.Ref, State: w.state, Entitled: w.generation == c.current || w.generation.inPlace[w.ID], Slot: w.slot,
			Late:  w.pulse.Late(),
			Hung:  w.generation == c.current && c.stuck[w.ID],
			Unfit: c.now.Before(w.unfit),
		})
	}
	by := map[int]roster.Ref{}
	for i, cover := range c.covers {
		by[i] = cover.by
	}
	c.wishes = roster.Want(n, c.facts, by)
	if c.detached == 0 || len(c.steered) == 0 { // while workers are adopted, nothing has changed that was told before
		c.tellSteering()
	}
	if c.current.up && c.stage == running && !c.frozen && c.detached == 0 {
		c.coverAll()
	}
	c.retryParked()
}

// coverAll has the sockets of workers that do not serve served by others.
func (c *core) coverAll() {
	for i := range c.covers {
		if i >= len(c.wishes) || c.wishes[i].Cover != c.covers[i].by {
			c.uncover(i)
		}
	}
	for i, wish := range c.wishes {
		if wish.Cover == (roster.Ref{}) {
			continue
		}
		w := c.workers[wish.Cover]
		if c.covers[i] == nil {
			c.covers[i] = &cover{by: wish.Cover, sent: map[wire.Endpoint]bool{}}
			c.log(slog.LevelDebug, "another worker serves the queue", "worker", i, "by", w.ID)
		}
		sent := c.covers[i].sent
		for _, e := range c.open() {
			if known := c.endpoints[e]; sent[e] || known.shared || i >= known.sockets || !w.generation.uses[e] {
				continue
			}
			sent[e] = true
			c.emit(send{
				ref: w.Ref, msg: wire.Message{Type: wire.Cover, Endpoint: &e, Socket: i}, socket: &sockets.Ref{Endpoint: e, Socket: i},
			})
		}
	}
}

// uncover has whoever covers for a worker stop that.
func (c *core) uncover(i int) {
	cover := c.covers[i]
	delete(c.covers, i)
	if w := c.workers[cover.by]; w != nil && w.state < wire.Closing {
		for _, e := range sorted(cover.sent) {
			c.tell(w, wire.Message{Type: wire.Uncover, Endpoint: &e, Socket: i})
		}
	}
}

// uncoverAll ends all covering.
func (c *core) uncoverAll() {
	for _, i := range slices.Sorted(maps.Keys(c.covers)) {
		c.uncover(i)
	}
}

// open returns the endpoints whose sockets are open, in order.
func (c *core) open() (all []wire.Endpoint) {
	for e, known := range c.endpoints {
		if known.sockets > 0 {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, compareEndpoints)
	return all
}

func sorted[V any](of map[wire.Endpoint]V) []wire.Endpoint {
	return slices.SortedFunc(maps.Keys(of), compareEndpoints)
}

func compareEndpoints(a, b wire.Endpoint) int { return strings.Compare(a.Name(), b.Name()) }

// addresses returns what is listened on, for the log.
func (c *core) addresses() []string {
	var all []string
	for e, known := range c.endpoints {
		if known.sockets > 0 {
			all = append(all, e.Network+" "+known.address)
		}
	}
	slices.Sort(all)
	return all
}

// couldNotServe notes that a worker cannot serve a socket that is not its own: another is to.
func (c *core) couldNotServe(w *worker, what loan, err string) {
	const pause = 5 * time.Second
	c.logWorker(slog.LevelWarn, w, "worker cannot serve the socket of another", "socket", what.socket, "error", err)
	if w.draining[what] {
		delete(w.draining, what)
		c.lendAgain(what)
		return
	}
	if cover := c.covers[what.socket]; cover != nil && cover.by == w.Ref {
		w.unfit = c.now.Add(pause)
		c.changed()
	}
}

// closeUnused closes the sockets that no worker has or will have, so that clients are refused instead of waiting: all of them
// in a stop, or those that the generation that goes on does not serve.
func (c *core) closeUnused() {
	if c.current == nil || c.frozen || c.stage < running {
		return
	}
	for _, w := range c.order {
		if w.state > wire.Joining && w.state < wire.Closing && (c.stage == stopping || w.generation != c.current) {
			return
		}
	}
	switch {
	case c.stage == stopping:
		if len(c.endpoints) > 0 {
			clear(c.endpoints)
			c.emit(closeSockets{})
		}
	case c.stage == running && c.current.up && len(c.generations) == 1:
		unused := false
		for e, known := range c.endpoints {
			if known.sockets > 0 && !c.current.uses[e] {
				delete(c.endpoints, e)
				unused = true
			}
		}
		if unused {
			c.emit(keepSockets{c.open()})
		}
	}
}

// parkedConn is a connection that was handed over, and that nobody can take yet.
type parkedConn struct {
	from     roster.Ref
	endpoint wire.Endpoint
	parcel   parcel
	until    time.Time
}

// parkTime is how long a connection waits for a worker that takes it, such as when all have crashed.
const parkTime = 5 * time.Second

// handover passes on a connection that a draining worker hands over.
func (c *core) handover(w *worker, e message) {
	if e.lost {
		c.logWorker(slog.LevelWarn, w, "a connection was lost that a worker handed over: the master has no descriptor left (ulimit -n)")
		return
	}
	if c.dirty {
		c.reconcile()
	}
	c.forward(w.Ref, *e.msg.Endpoint, e.parcel)
}

// forward gives a connection to a worker that accepts: the one in the place of the one that it comes from, if that can be.
func (c *core) forward(from roster.Ref, e wire.Endpoint, p parcel) {
	if c.stage >= stopping || c.stage == leaving && c.current == nil {
		c.loseConn(from, p)
		return
	}
	if to := c.taker(from, e); to != (roster.Ref{}) && !c.frozen {
		c.emit(forward{to: to, from: from, endpoint: e, parcel: p})
		return
	}
	c.parked = append(c.parked, parkedConn{from, e, p, c.now.Add(parkTime)})
	if _, ok := c.timers[parkTimer]; !ok {
		c.set(parkTimer, parkTime)
	}
}

// taker returns who takes a connection of a worker; zero if nobody does.
func (c *core) taker(from roster.Ref, e wire.Endpoint) roster.Ref {
	can := func(r roster.Ref) bool {
		return r != (roster.Ref{}) && r != from && c.workers[r] != nil && c.workers[r].generation.uses[e]
	}
	if from.ID < len(c.wishes) && can(c.wishes[from.ID].Server) {
		return c.wishes[from.ID].Server
	}
	for range c.wishes {
		c.turn++
		if r := c.wishes[c.turn%len(c.wishes)].Server; can(r) {
			return r
		}
	}
	return roster.Ref{}
}

// retryParked gives parked connections to who can take them now.
func (c *core) retryParked() {
	parked := c.parked
	c.parked = nil
	for _, p := range parked {
		if to := c.taker(p.from, p.endpoint); to != (roster.Ref{}) && !c.frozen {
			c.emit(forward{to: to, from: p.from, endpoint: p.endpoint, parcel: p.parcel})
		} else {
			c.parked = append(c.parked, p)
		}
	}
}

// loseParked gives up on connections that have waited for too long.
func (c *core) loseParked() {
	c.parked = slices.DeleteFunc(c.parked, func(p parkedConn) bool {
		late := c.stage >= stopping || !c.now.Before(p.until)
		if late {
			c.loseConn(p.from, p.parcel)
		}
		return late
	})
	if len(c.parked) > 0 {
		c.timers[parkTimer] = c.parked[0].until
	}
}

func (c *core) loseConn(from roster.Ref, p parcel) {
	c.log(slog.LevelWarn, "a connection was lost that a worker handed over: no worker could take it", "worker", from.ID)
	c.dropParcel(p)
}

func (c *core) dropParcel(p parcel) {
	if p != nil {
		c.emit(drop{p})
	}
}

// steeringState is how far the steering is.
type steeringState int

const (
	steeringOff steeringState = iota
	steeringStarts
	steeringOn
)

// beginSteering has it begin, or begin anew for the workers of another plan.
func (c *core) beginSteering(p spec) {
	c.steering, c.steered, c.steeredAmong = steeringStarts, nil, p.plan.Workers()
	c.unattached, c.attaching = false, 0
	clear(c.stuck)
	for _, w := range c.order {
		w.slot = slotNone
	}
	c.set(steeringTimer, steeringTime)
	c.emit(startSteering{p.plan})
}

// steeringTime is how long the steering may take to start.
const steeringTime = 10 * time.Second

func (c *core) onSteering(e event) {
	switch e := e.(type) {
	case steeringStarted:
		c.steeringStarted(e.err)
	case steeringFailed:
		c.loseSteering(e.err)
	case steeringJoined:
		w := c.workers[e.ref]
		if w == nil || c.steering != steeringOn || w.slot != slotPending {
			if e.slot >= 0 {
				c.emit(leaveSteering{e.slot})
			}
			return
		}
		w.slot = e.slot
		c.changed()
		if e.slot >= 0 {
			c.emit(send{ref: w.Ref, msg: wire.Message{Type: wire.Board, Slot: e.slot}, board: true})
		}
	case steeringHung:
		c.stuckAt(e.worker, e.hung)
	}
}

func (c *core) steeringStarted(err error) {
	if c.steering != steeringStarts {
		return
	}
	if err != nil && c.stage == opening {
		c.giveUp(err)
		return
	}
	if err != nil {
		c.loseSteering(err)
		return
	}
	c.steering, c.steered = steeringOn, map[int]roster.Steer{}
	for _, w := range c.order {
		c.join(w)
	}
	c.unattached = true // until the steering knows who serves
	c.changed()
	if c.current == nil {
		c.attachAll()
	}
	if c.stage == opening {
		c.openNext()
	}
}

// loseSteering goes on without, which is logged once.
func (c *core) loseSteering(err error) {
	if c.steering != steeringOff {
		c.log(slog.LevelError, "connections are not steered", "error", err)
	}
	c.steering, c.steered, c.unattached, c.attaching = steeringOff, nil, false, 0
	clear(c.stuck)
	c.changed()
}

// attachAll has what comes to all endpoints steered.
func (c *core) attachAll() {
	c.unattached = false
	for _, e := range c.open() {
		c.attach(e)
	}
}

// attach has what comes to an endpoint steered.
func (c *core) attach(e wire.Endpoint) {
	if known := c.endpoints[e]; c.steering == steeringOn && !c.unattached && known != nil && !known.shared && c.steeredAmong <= known.sockets {
		c.attaching++
		c.set(steeringTimer, steeringTime)
		c.emit(attachSteering{e, c.steeredAmong})
	}
}

// steeringSettles reports whether connections are to be steered, and are not yet.
func (c *core) steeringSettles() bool {
	return c.steering == steeringStarts || c.steering == steeringOn && (c.unattached || c.attaching > 0)
}

func (c *core) attached(e attached) {
	c.attaching = max(0, c.attaching-1)
	if c.stage == opening && c.attaching == 0 {
		defer c.openNext()
	}
	known := c.endpoints[e.endpoint]
	if known == nil {
		return
	}
	known.steered = e.err == nil && e.mode != "hash" && e.mode != "SO_INCOMING_CPU"
	switch {
	case e.err != nil:
		c.log(slog.LevelError, "connections are not steered", "endpoint", e.endpoint.String(), "error", e.err)
	case e.reason != nil:
		c.log(slog.LevelWarn, "steering", "endpoint", e.endpoint.String(), "mode", e.mode, "reason", e.reason)
	default:
		c.log(slog.LevelInfo, "steering", "endpoint", e.endpoint.String(), "mode", e.mode)
	}
}

// steeredEndpoints returns those among whose sockets a program chooses that knows them.
func (c *core) steeredEndpoints() map[wire.Endpoint]bool {
	all := map[wire.Endpoint]bool{}
	for e, known := range c.endpoints {
		if known.steered {
			all[e] = true
		}
	}
	return all
}

// join has a worker told where to report.
func (c *core) join(w *worker) {
	if c.steering == steeringOn && w.slot == slotNone && w.state > wire.Joining && !w.detached {
		w.slot = slotPending
		c.emit(joinSteering{w.Ref})
	}
}

// tellSteering tells the steering what has changed.
func (c *core) tellSteering() {
	if c.steering != steeringOn || c.steeredAmong != len(c.wishes) {
		return
	}
	waits := false
	for i, wish := range c.wishes {
		if wish.Steer.Slot == slotPending {
			waits = true // until it is known where the worker reports
			continue
		}
		if before, ok := c.steered[i]; ok && before == wish.Steer {
			continue
		}
		c.steered[i] = wish.Steer
		c.emit(steer{i, wish.Steer})
	}
	if c.unattached && !waits {
		c.attachAll()
	}
}

// Where a worker reports that reports nowhere.
const (
	slotNone    = -1
	slotPending = -2 // yet
)

// stuckAt notes that the steering has found that a worker hangs, or not any more.
func (c *core) stuckAt(id int, hung bool) {
	if c.current == nil || id >= c.current.plan.Workers() || c.stuck[id] == hung {
		return
	}
	if hung {
		c.stuck[id] = true
		c.log(slog.LevelWarn, "worker hangs, others serve its queue", "worker", id)
	} else {
		delete(c.stuck, id)
		c.log(slog.LevelInfo, "worker goes on", "worker", id)
	}
	c.changed()
}
