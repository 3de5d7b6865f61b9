package sockets

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// Where clients speak first, the kernel is told to let a connection into the queue of its socket only when something
// has come on it (TCP_DEFER_ACCEPT, tcp(7); Linux): a worker then is not woken for nothing. Until then the connection
// is a request of the listening socket's, which poll(2) does not show, and which is lost when the socket is closed. A
// client that says nothing is let in after deferTime.

// deferTime is for how long the kernel keeps a silent client: until it sends its part of the handshake again, when the
// answer is as good as a word. It is the least that there is (syn_ack_recalc in net/ipv4/inet_connection_sock.c).
const deferTime = time.Second

// ComesWithin is how long it takes until every client is in a queue that had connected before.
const ComesWithin = deferTime + answerTime

// awaitLimit is for [Deferred.Await] on a machine that is so busy that the kernel's timers are late.
const awaitLimit = 3 * time.Second

// answerTime is how long the answer of a client, and timers of the kernel, may take.
const answerTime = 250 * time.Millisecond

// Defer has the kernel let in connections to the sockets of an endpoint, and to those that are opened for it later,
// when their clients have said something, or, unless on is set, at once. An option of the user's of a longer time stays.
func (k *Keeper) Defer(e wire.Endpoint, on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.open[e]; s != nil {
		s.deferred = on
		for _, l := range s.listeners {
			deferAccept(l, on)
		}
	}
}

// Deferred is to which sockets connections may come that had not been let in when that was ended: see [EndDefer].
type Deferred struct {
	ports map[port]bool
}

// port is one of IPv4, or of IPv6, which is also that of clients by IPv4 of a socket of both.
type port struct {
	number uint16
	v6     bool
}

func portOfListener(l *net.TCPListener) port {
	a := l.Addr().(*net.TCPAddr)
	return port{uint16(a.Port), a.IP.To4() == nil}
}

// EndDefer has the kernel let in connections at once, by sockets that are about to be closed.
func EndDefer(listeners []net.Listener) Deferred {
	d := Deferred{ports: map[port]bool{}}
	for _, l := range listeners {
		if t, ok := l.(*net.TCPListener); ok && deferAccept(t, false) {
			d.ports[portOfListener(t)] = true
		}
	}
	return d
}

// request is what the kernel knows of a client that it has not let in yet.
type request struct {
	port    port          // that it came to
	retries uint8         // of the kernel's part of the handshake
	due     time.Duration // until the next
}

// comes reports whether it is to be waited for, by somebody who has waited for so long: it may be one that was kept
// then, or the answer to the first try may be under way. Others are new, or of clients that have gone, or never were.
func (r request) comes(waited time.Duration) bool {
	const (
		second = 2 * deferTime // from the first try to the second
		tick   = 20 * time.Millisecond
	)
	left := max(deferTime-waited, 0) // the timer may be late
	return r.retries == 0 && r.due <= left+tick || r.retries == 1 && r.due > second-answerTime
}

// lookForRequests is how often [Deferred.Await] looks, and lookSeldom where a look takes long, since there are many
// connections.
const (
	lookForRequests = 20 * time.Millisecond
	lookSeldom      = 100 * time.Millisecond
)

// Await waits until the connections that were kept are in the queues of the sockets: not at all if there are none, for
// ComesWithin where nobody tells, and not longer than limit, or until ctx ends.
func (d Deferred) Await(ctx context.Context, limit time.Duration) {
	if len(d.ports) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(limit, awaitLimit))
	defer cancel()
	for begun := time.Now(); ; {
		looked := time.Now()
		if !d.some(looked.Sub(begun)) {
			return
		}
		select {
		case <-time.After(min(max(lookForRequests, 4*time.Since(looked)), lookSeldom)):
		case <-ctx.Done():
			return
		}
	}
}

// some reports whether some are still to come.
func (d Deferred) some(waited time.Duration) bool {
	var v4, v6 bool
	for p := range d.ports {
		v4, v6 = v4 || !p.v6, v6 || p.v6
	}
	all, err := requests(v4, v6)
	if err != nil {
		return waited < ComesWithin
	}
	return slices.ContainsFunc(all, func(r request) bool { return d.ports[r.port] && r.comes(waited) })
}
