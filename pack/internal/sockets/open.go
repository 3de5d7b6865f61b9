package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

// opening is an endpoint of which the sockets are being opened.
type opening struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when it has ended

	// Set before done is closed.
	err      error
	canceled bool // by its own caller, which says nothing to others
}

// Open opens the sockets of an endpoint, one for each of so many workers, unless they are open. It may wait for a name
// to be resolved. If several callers ask for one endpoint, one opens it and the others get the result.
//
// A Unix socket whose process is gone is replaced. A path that is relative means the current directory, now and later.
func (k *Keeper) Open(ctx context.Context, e wire.Endpoint, workers int) (Info, error) {
	for {
		o, info, err := k.begin(ctx, e)
		switch {
		case err != nil || info.Sockets > 0:
			return info, err
		case o.ctx != nil:
			return k.finish(o, e, workers)
		}
		select {
		case <-o.done:
			if o.err != nil && !o.canceled {
				return Info{}, o.err
			}
		case <-ctx.Done():
			return Info{}, fmt.Errorf("listen %s: %w", e, context.Cause(ctx))
		}
	}
}

// attempt is a call of Open: ctx is set if it is the one that opens the sockets.
type attempt struct {
	*opening
	ctx context.Context
}

// begin returns what is open, or who opens it.
func (k *Keeper) begin(ctx context.Context, e wire.Endpoint) (attempt, Info, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return attempt{}, Info{}, stopping(e)
	}
	if s := k.open[e]; s != nil {
		return attempt{}, s.info(e), nil
	}
	if o := k.opening[e]; o != nil {
		return attempt{opening: o}, Info{}, nil
	}
	o := &opening{done: make(chan struct{})}
	ctx, o.cancel = context.WithCancelCause(ctx)
	k.opening[e] = o
	return attempt{o, ctx}, Info{}, nil
}

// finish opens the sockets, without the lock, and tells who waits for them.
func (k *Keeper) finish(a attempt, e wire.Endpoint, workers int) (info Info, err error) {
	s, err := k.openSet(a.ctx, e, workers)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		if err == nil {
			s.close()
		}
		err = stopping(e)
	case err != nil:
		err = k.explain(err)
		a.canceled = a.ctx.Err() != nil
	default:
		k.open[e] = s
		info = s.info(e)
		k.polled.changed()
	}
	a.cancel(nil)
	delete(k.opening, e)
	a.err = err
	close(a.done)
	return info, err
}

func (k *Keeper) openSet(ctx context.Context, e wire.Endpoint, workers int) (*set, error) {
	switch e.Network {
	case "tcp", "tcp4", "tcp6":
		return openTCP(ctx, e, workers)
	case "unix":
		return openUnix(ctx, e.Address, k.files)
	}
	return nil, fmt.Errorf("listen %s: want the network to be tcp, tcp4, tcp6 or unix: %w",
		e, net.UnknownNetworkError(e.Network))
}

func openTCP(ctx context.Context, e wire.Endpoint, workers int) (*set, error) {
	shared := false
	config := reuseport.Config{Exclusive: true}
	listeners, err := config.ListenGroup(ctx, e.Network, e.Address, workers)
	if errors.Is(err, errors.ErrUnsupported) {
		var one net.Listener
		if one, err = new(net.ListenConfig).Listen(ctx, e.Network, e.Address); err == nil {
			listeners, shared = []net.Listener{one}, true
		}
	}
	if err != nil {
		// What is wrong is told by the *net.OpError; that it happened in package reuseport is not.
		if op, ok := errors.AsType[*net.OpError](err); ok {
			return nil, op
		}
		return nil, err
	}
	return &set{listeners: listeners, shared: shared}, nil
}

// explain adds what to do to the errors that users meet most. It is called with mu locked.
func (k *Keeper) explain(err error) error {
	op, isOp := errors.AsType[*net.OpError](err) // of the bind
	hint := ""
	switch linux := runtime.GOOS == "linux"; {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "is another instance running?"
		if own := k.occupant(err); own != "" {
			hint = "this pack listens on " + own + " already"
		} else if linux {
			hint += " ss -lntxp shows who listens"
		}
	case errors.Is(err, syscall.EACCES) && isOp && op.Net == "unix":
		hint = "the directory must be writable for this user"
	case errors.Is(err, syscall.EACCES) && isOp && linux:
		hint = "ports below net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "no interface of this machine has that address"
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, hint)
}

// occupant returns the endpoint of ours that takes an address which another was to have; "" if there is none. It is
// called with mu locked.
func (k *Keeper) occupant(err error) string {
	op, _ := errors.AsType[*net.OpError](err)
	taken, _ := errors.AsType[*takenError](err)
	for _, e := range k.endpoints() {
		s := k.open[e]
		if taken != nil && s.file != nil && s.file.id == taken.id || op != nil && s.overlaps(e.Network, op) {
			return e.Network + " " + s.address()
		}
	}
	return ""
}

// overlaps reports whether who has these sockets gets some of what would come to the address of an error.
func (s *set) overlaps(network string, op *net.OpError) bool {
	a, ok := s.listeners[0].Addr().(*net.TCPAddr)
	b, bok := op.Addr.(*net.TCPAddr)
	return ok && bok && a.Port == b.Port && (covers(network, a.IP, b.IP) || covers(op.Net, b.IP, a.IP))
}

// covers reports whether who listens on a also gets what comes to b.
func covers(network string, a, b net.IP) bool {
	v4 := a.To4() != nil
	switch {
	case len(a) > 0 && !a.IsUnspecified():
		return a.Equal(b)
	case v4 == (b.To4() != nil):
		return true
	}
	return !v4 && network != "tcp6"
}
