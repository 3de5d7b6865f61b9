package sockets

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// Workers whose master was killed close their sockets at once, which takes a moment all the same. So whoever starts the
// pack anew just then waits for them. For others it does not wait: that is another instance.
const (
	orphanPatience = 10 * time.Second
	killedPatience = 300 * time.Millisecond // a process that was killed may look alive for that long
	waitPoll       = 50 * time.Millisecond
	lookPause      = 500 * time.Millisecond
)

// WaitsFor returns what a log says of a wait for processes, of which none may be known.
func WaitsFor(pids []int) string {
	if len(pids) == 0 {
		return "waiting for an address that is in use"
	}
	return "waiting for an address on which workers listen whose master is gone"
}

// holder is a process that listens on an address.
type holder struct {
	pid    int
	name   string
	orphan bool // it is a worker whose master is gone
}

// waiter waits for an address to be free.
type waiter struct {
	keeper   *Keeper
	endpoint wire.Endpoint
	beside   bool // sockets of this process are not in the way
	begun    time.Time
	looked   time.Time
	holders  []holder  // at the last look
	others   time.Time // since when they are not only orphans; they may have ended just before the look
	told     bool
}

// wait waits a little, and reports whether it is worth another try.
func (w *waiter) wait(ctx context.Context, inUse error) bool {
	if w.begun.IsZero() {
		w.begun = time.Now()
	}
	if time.Since(w.looked) > lookPause {
		w.look(inUse)
	}
	if time.Since(w.begun) > orphanPatience || !w.others.IsZero() && time.Since(w.others) > killedPatience {
		return false
	}
	timer := time.NewTimer(waitPoll)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// look finds out who has the address, and tells of it once if it is waited for.
func (w *waiter) look(inUse error) {
	w.holders = holders(w.endpoint, inUse)
	if w.beside {
		w.holders = slices.DeleteFunc(w.holders, func(h holder) bool { return h.pid == os.Getpid() })
	}
	w.looked = time.Now()
	orphans := len(w.holders) > 0 && !slices.ContainsFunc(w.holders, func(h holder) bool { return !h.orphan })
	if !orphans && runtime.GOOS == "linux" { // elsewhere nobody tells who it is
		if w.others.IsZero() {
			w.others = w.looked
		}
		return
	}
	w.others = time.Time{}
	if w.told || w.keeper.Waits == nil {
		return
	}
	w.told = true
	var pids []int
	for _, h := range w.holders {
		pids = append(pids, h.pid)
	}
	w.keeper.Waits(w.endpoint, pids)
}

// hint says what to do about it.
func (w *waiter) hint(inUse error) string {
	if len(w.holders) == 0 {
		if others := connected(inUse); len(others) > 0 {
			return "a connection of process " + named(others) + " has that port, which the kernel may choose for any: take " +
				"one outside of net.ipv4.ip_local_port_range, or put it into net.ipv4.ip_local_reserved_ports"
		}
		if runtime.GOOS == "linux" {
			return "is another instance running? ss -antxp shows who has the address"
		}
		return "is another instance running?"
	}
	orphans := true
	for _, h := range w.holders {
		if h.pid == os.Getpid() {
			return "this process listens there itself, but not by the pack"
		}
		orphans = orphans && h.orphan
	}
	if orphans {
		return "workers of a pack whose master is gone listen there, and do not end: kill " + named(w.holders)
	}
	if len(w.holders) == 1 {
		return fmt.Sprintf("is another instance running? process %s listens there", named(w.holders))
	}
	return fmt.Sprintf("is another instance running? processes %s listen there", named(w.holders))
}

// named returns the numbers and names of processes.
func named(all []holder) string {
	var who []string
	for _, h := range all {
		who = append(who, fmt.Sprintf("%d (%s)", h.pid, h.name))
	}
	return strings.Join(who, ", ")
}
