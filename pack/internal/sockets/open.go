package sockets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
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
// to be resolved, and for some seconds for workers to end whose master is gone, and that still have the address. If
// several callers ask for one endpoint, one opens it and the others get the result.
//
// A Unix socket whose process is gone is replaced. A path that is relative means the current directory, now and later.
//
// leaving are endpoints that whoever asks does not serve. If the sockets of one of them listen on just what the
// endpoint asked for means, as localhost:80 and 127.0.0.1:80 do, those are returned, with the endpoint that they are
// known by. If they listen on some of it, the new ones are opened beside them, if the kernel lets both be. All other
// sockets that are open already are in the way.
func (k *Keeper) Open(ctx context.Context, e wire.Endpoint, workers int, leaving ...wire.Endpoint) (Info, error) {
	for {
		o, info, err := k.begin(ctx, e)
		switch {
		case err != nil || info.Sockets > 0:
			return info, err
		case o.ctx != nil:
			return k.finish(o, e, workers, leaving)
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
func (k *Keeper) finish(a attempt, e wire.Endpoint, workers int, leaving []wire.Endpoint) (info Info, err error) {
	s, same, err := k.openOrFind(a.ctx, e, workers, leaving)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		if s != nil {
			s.close()
		}
		err = stopping(e)
	case err != nil:
		a.canceled = a.ctx.Err() != nil
	case s == nil:
		if s = k.open[same]; s == nil {
			err = fmt.Errorf("listen %s: %s was closed just now", e, same)
			break
		}
		info = s.info(same)
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

// openOrFind opens the sockets of an endpoint, or finds among those that are open under another name the ones that it
// means.
func (k *Keeper) openOrFind(ctx context.Context, e wire.Endpoint, workers int, leaving []wire.Endpoint) (
	s *set, same wire.Endpoint, err error,
) {
	w := waiter{keeper: k, endpoint: e}
	var beside []wire.Endpoint
	if s := k.openPassed(ctx, e, workers); s != nil {
		return s, same, nil
	}
	for {
		s, err = k.openSet(ctx, e, workers, beside != nil)
		switch {
		case err == nil:
			s.beside = beside
			return s, same, nil
		case !errors.Is(err, errInUse):
			if near := k.near(e); near != "" { // it may have had no right to open another
				err = fmt.Errorf("%w (%s)", err, near)
			}
			return nil, same, explain(err, "")
		}
		own := k.inTheWay(e, err)
		switch {
		case own.same(leaving):
			return nil, own.endpoints[0], nil
		case len(own.endpoints) > 0 && beside == nil:
			if why := own.refusal(leaving); why != "" {
				return nil, same, explain(err, why)
			}
			beside, w.beside = own.endpoints, true
		case !w.wait(ctx, err):
			return nil, same, explain(err, cmp.Or(k.near(e), w.hint(err)))
		}
	}
}

// openSet opens the sockets of an endpoint. beside says that the address is shared with sockets of this process.
func (k *Keeper) openSet(ctx context.Context, e wire.Endpoint, workers int, beside bool) (*set, error) {
	switch e.Network {
	case "tcp", "tcp4", "tcp6":
		if e.Own {
			return k.openEach(ctx, e, workers)
		}
		return k.openTCP(ctx, e, workers, beside)
	case "unix":
		if !e.Own {
			return k.openUnix(ctx, e.Address)
		}
	case "udp", "udp4", "udp6":
		if !e.Own {
			return k.openUDP(ctx, e, workers, beside)
		}
	}
	if e.Own {
		return nil, fmt.Errorf("listen %s in each worker: want the network to be tcp, tcp4 or tcp6: %w",
			e, net.UnknownNetworkError(e.Network))
	}
	return nil, fmt.Errorf("listen %s: want the network to be tcp, tcp4, tcp6 or unix, or for packets udp, udp4 or udp6: %w",
		e, net.UnknownNetworkError(e.Network))
}

// openTCP lets nobody else in who listens there already: with sockets of this process there, who they let in has been
// looked at before.
func (k *Keeper) openTCP(ctx context.Context, e wire.Endpoint, workers int, beside bool) (*set, error) {
	config := reuseport.Config{Exclusive: !beside, Control: k.control()}
	listeners, err := config.ListenGroup(ctx, e.Network, e.Address, workers)
	if errors.Is(err, errors.ErrUnsupported) {
		config := net.ListenConfig{Control: k.control()}
		return oneForAll(config.Listen(ctx, e.Network, e.Address))
	}
	return newSet(e, listeners, err)
}

// openUDP is openTCP for packet sockets, of which the kernel chooses as [set.direct] says.
func (k *Keeper) openUDP(ctx context.Context, e wire.Endpoint, workers int, beside bool) (*set, error) {
	config := reuseport.Config{Exclusive: !beside, Control: k.control()}
	conns, err := config.ListenPacketGroup(ctx, e.Network, e.Address, workers)
	var s *set
	switch unsupported := errors.Is(err, errors.ErrUnsupported); {
	case unsupported && e.QUIC && workers > 1:
		return nil, fmt.Errorf("listen %s: workers cannot share a socket of QUIC, and only on Linux each has its own: "+
			"have one worker: %w", e, err)
	case unsupported:
		config := net.ListenConfig{Control: k.control()}
		s, err = oneForAll(config.ListenPacket(ctx, e.Network, e.Address))
	default:
		s, err = newSet(e, conns, err)
	}
	if err != nil {
		return nil, err
	}
	if e.QUIC {
		if err := s.newSecret(); err != nil {
			s.close()
			return nil, fmt.Errorf("listen %s: %w", e, err)
		}
		return s, nil
	}
	s.seed = rand.Uint32()
	if !s.shared {
		s.direct(workers) // where it cannot, the kernel's hash does
	}
	return s, nil
}

// newSet takes over what package reuseport has opened.
func newSet[S any](e wire.Endpoint, all []S, err error) (*set, error) {
	if err != nil {
		// What is wrong is told by the *net.OpError; that it happened in package reuseport is not.
		if op, ok := errors.AsType[*net.OpError](err); ok {
			return nil, op
		}
		return nil, err
	}
	kept, err := keepAll(all...)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", e, err)
	}
	return &set{listeners: kept}, nil
}

// oneForAll takes over a socket of package net that all workers share.
func oneForAll[S any](one S, err error) (*set, error) {
	if err != nil {
		return nil, err
	}
	kept, err := keepAll(one)
	if err != nil {
		return nil, err
	}
	return &set{listeners: kept, shared: true}, nil
}

// control returns the user's function, whose panic is an error; nil if there is none.
func (k *Keeper) control() func(network, address string, c syscall.RawConn) error {
	if k.Control == nil {
		return nil
	}
	return func(network, address string, c syscall.RawConn) (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("Config.Control: panic: %v\n%s", v, debug.Stack())
			}
		}()
		if err := k.Control(network, address, c); err != nil {
			return fmt.Errorf("Config.Control: %w", err)
		}
		return nil
	}
}

// explain adds what to do to the errors that users meet most. inUse says it of an address that is in use.
func explain(err error, inUse string) error {
	op, isOp := errors.AsType[*net.OpError](err) // of the bind
	hint := ""
	call, _ := errors.AsType[*os.SyscallError](err)
	refused := isOp && call != nil && (call.Syscall == "bind" || call.Syscall == "listen") &&
		(errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM))
	switch linux := runtime.GOOS == "linux"; {
	case errors.Is(err, errInUse):
		hint = inUse
	case errors.Is(err, syscall.EACCES) && isOp && op.Net == "unix":
		hint = "the directory must be writable for this user"
	case refused && linux && isLow(op.Addr):
		hint = "ports below net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE"
	case refused && linux:
		hint = "not for its number: SELinux, whose audit log tells, or another security module, or a filter such as " +
			"SocketBindDeny= of systemd refuses it"
	case errors.Is(err, errUnavailable):
		hint = "no interface of this machine has that address"
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, hint)
}

// isLow reports whether the port of an address is one that takes a right (ip(7)).
func isLow(a net.Addr) bool {
	first := 1024
	text, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		first = n
	}
	tcp := inetAddr(a)
	return tcp != nil && tcp.Port > 0 && tcp.Port < first
}
