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
		c.directQUIC()
	}
	c.retryParked()
}

// coverAll has the sockets of workers that do not serve served by others.
func (c *core) coverAll() {
	c.leaveOut()
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
			known := c.endpoints[e]
			if sent[e] || known.shared || e.Own || e.IsPacket() || i >= known.sockets || !w.generation.uses[e] {
				continue
			}
			sent[e] = true
			c.emit(send{
				ref: w.Ref, msg: w.generation.written(wire.Message{Type: wire.Cover, Endpoint: &e, Socket: i}),
				socket: &sockets.Ref{Endpoint: e, Socket: i},
			})
		}
	}
}

// leaveOut has datagrams go to others that would come to workers that do not serve. What is queued there already waits
// for who comes in their places.
func (c *core) leaveOut() {
	has := slices.ContainsFunc(c.open(), func(e wire.Endpoint) bool {
		return e.IsPacket() && !e.QUIC && !c.endpoints[e].shared
	})
	if !has {
		return
	}
	var absent []int
	for i, wish := range c.wishes {
		if wish.Cover != (roster.Ref{}) {
			absent = append(absent, i)
		}
	}
	if c.absent == nil || !slices.Equal(absent, *c.absent) {
		c.absent = &absent
		c.emit(directPackets{len(c.wishes), absent})
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

// uncoverGiven has nobody serve sockets for others that systemd goes on listening on: when the pack stops, what is
// queued on them waits for who serves them next.
func (c *core) uncoverGiven() {
	if c.covers[0] == nil { // the first socket of an address is the one that was passed
		return
	}
	for _, e := range sorted(c.covers[0].sent) {
		if known := c.endpoints[e]; known != nil && known.given {
			c.tell(c.workers[c.covers[0].by], wire.Message{Type: wire.Uncover, Endpoint: &e})
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
		if known.sockets == 0 {
			continue
		}
		address := known.address
		if c.current != nil {
			own := c.current.writes(e)
			if own != e && own.Network == "unix" {
				address = own.Address
			}
			e = own
		}
		all = append(all, e.Network+" "+address)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// couldNotServe notes that a worker cannot serve a socket that is not its own: another is to.
func (c *core) couldNotServe(w *worker, what loan, err string) {
	const pause = 5 * time.Second
	cover := c.covers[what.socket]
	covers := cover != nil && cover.by == w.Ref
	if !covers && !w.draining[what] {
		return // it was told to stop that meanwhile
	}
	c.logWorker(slog.LevelWarn, w, "worker cannot serve the socket of another", "socket", what.socket, "error", err)
	if w.draining[what] {
		delete(w.draining, what)
		c.lendAgain(what)
	}
	if covers {
		w.unfit = c.now.Add(pause)
		c.changed()
	}
}

// closeUnasked closes the sockets of addresses that the master was told of, and that no worker has asked for: clients
// would wait there for ever.
func (c *core) closeUnasked(g *generation) {
	unasked := c.leaving(g)
	for _, e := range unasked {
		c.log(slog.LevelWarn, "no worker serves an address that the master was told of, it is closed: call Handle for it "+
			"in the workers, too", "address", e.String())
	}
	if len(unasked) > 0 {
		c.closeUnused()
	}
}

// closeUnused closes the sockets that no worker has or will have, so that clients are refused instead of waiting: all
// of them in a stop, or those that the generation that goes on does not serve.
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
