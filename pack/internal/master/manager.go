package master

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// outward is the pack as who has started it sees it: a service manager, such as systemd. Whatever has brought it about,
// the manager is told when it has changed.
type outward struct {
	known     bool
	state     systemd.State // "" while the pack starts
	change    int           // reloading: which, since a manager that asks for the next must hear of that, too
	kind      kind
	serving   int // of the workers that are to
	workers   int
	launched  bool // others are to replace them
	next      int  // of these, which serve already
	addresses int
	trouble   string // that the last change failed
}

// outward returns the pack as it is now.
func (c *core) outward() (o outward) {
	o = outward{known: true, state: systemd.Ready, trouble: c.trouble}
	for _, e := range c.endpoints {
		if e.sockets > 0 {
			o.addresses++
		}
	}
	if c.current != nil {
		o.workers = c.current.plan.Workers()
	}
	for _, w := range c.order {
		switch {
		case w.state != wire.Serving || w.ending:
		case w.generation == c.current:
			o.serving++
		case c.change != nil && w.generation == c.change.next:
			o.next++
		}
	}
	switch {
	case c.stage >= leaving:
		o.state, o.serving = systemd.Stopping, len(c.workers)
	case c.inherited != nil:
		o.state, o.kind = systemd.Reloading, upgrading
	case c.stage < running || c.current == nil || !c.current.up:
		o.state = ""
	case c.change != nil:
		o.state, o.change, o.kind = systemd.Reloading, c.change.number, c.change.kind
		if c.change.next != nil && c.change.next != c.current {
			o.launched, o.workers = true, c.change.next.plan.Workers()
		}
	}
	return o
}

// tellManager tells the service manager what has changed, that it must wait, and that the pack is alive.
func (c *core) tellManager() {
	if !c.Managed || c.stage == over {
		return
	}
	if o := c.outward(); o != c.told {
		m := systemd.Message{Status: c.sentence(o)}
		if m.Status == c.said {
			m.Status = ""
		}
		c.said = cmp.Or(m.Status, c.said)
		if o.state != c.told.state || o.change != c.told.change {
			m.State = o.state
		}
		switch {
		case o.trouble != "" && (m.State == systemd.Ready || o.trouble != c.told.trouble):
			m.Errno = systemd.Failed
		case o.trouble == "" && m.State == systemd.Ready: // a program that was here before may have said so
			m.Errno = systemd.NoError
		}
		c.told = o
		if m != (systemd.Message{}) {
			c.emit(notify{m})
		}
	}
	c.extend()
	if _, waits := c.timers[watchdogTimer]; !waits && c.Watchdog > 0 && c.isAlive() {
		c.set(watchdogTimer, c.Watchdog/watchdogShare)
		c.emit(notify{systemd.Message{Alive: true}})
	}
}

// watchdogShare is how many signs of life there are in the time after which the manager misses one.
const watchdogShare = 4

const (
	extendEvery = 5 * time.Second // in which the manager is asked to wait on
	extendBy    = 6 * extendEvery // how long, each time
	shortest    = 3 * time.Second // of a watchdog
)

// extend has the manager wait while something goes on that takes its time, and comes to an end by itself: a change, or
// a stop, which ShutdownTimeout bounds. What the program does by itself at its start, or before an upgrade, does not.
func (c *core) extend() {
	if _, waits := c.timers[extendTimer]; waits {
		return
	}
	busy := c.change != nil && c.change.phase != preparing
	if c.stage == leaving || c.stage == stopping || busy && c.stage == running {
		c.set(extendTimer, extendEvery)
		c.emit(notify{systemd.Message{Extend: extendBy}})
	}
}

// isAlive reports whether the pack does what it is for: some worker has given a sign of life as lately as the manager
// wants one of the pack. While the pack starts or stops nobody needs to.
func (c *core) isAlive() bool {
	if c.stage < running && c.inherited == nil || c.stage >= leaving || c.current == nil || !c.current.up {
		return true
	}
	for _, w := range c.order {
		silence := c.monitor.Silence(w.Ref)
		if w.state == wire.Serving && !w.ending && (c.Hang == IgnoreHung || silence <= max(c.Watchdog, shortest)) {
			return true
		}
	}
	return false
}

// sentence returns the state of the pack for people.
func (c *core) sentence(o outward) string {
	var s string
	switch o.state {
	case systemd.Ready:
		s = "no worker serves "
		if o.serving > 0 {
			s = count(o.serving, o.workers, "worker serves ", "workers serve ")
		}
		s += listOf(c.addresses())
	case systemd.Reloading:
		s = doing[o.kind]
		switch ch := c.change; {
		case ch == nil || ch.next == nil:
		case ch.next == c.current:
			s += ": the new workers serve"
		default:
			s += ": " + count(o.next, o.workers, "new worker serves", "new workers serve")
		}
	case systemd.Stopping:
		s = "stopping"
		if c.why != nil {
			s += " (" + c.why.Error() + ")"
		}
		if o.serving > 0 {
			s += ": " + count(o.serving, o.serving, "worker finishes", "workers finish") + " what is there"
		}
	default:
		s = "starting"
		if c.stage == hooking {
			s += ": OnStart has not returned"
		} else if o.workers > 0 {
			s += ": " + count(o.serving, o.workers, "worker is ready", "workers are ready")
		}
	}
	if o.trouble != "" && o.state == systemd.Ready {
		s += "; " + o.trouble
	}
	return s
}

// doing is what a change does.
var doing = [...]string{
	reloading: "reloading", upgrading: "upgrading", scaling: "changing the number of workers",
	placing: "placing the workers anew", renewing: "replacing the worker",
}

// count returns "3 of 4 workers serve", or "4 workers serve" of as many.
func count(n, of int, one, several string) string {
	if of != 1 {
		one = several
	}
	if n != of {
		return fmt.Sprintf("%d of %d %s", n, of, one)
	}
	return fmt.Sprintf("%d %s", n, one)
}

// listOf returns the first of some things.
func listOf(all []string) string {
	const first = 4
	if len(all) <= first {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:first], ", "), len(all)-first)
}
