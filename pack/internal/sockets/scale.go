package sockets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

// Grow opens sockets for more workers, if n is more, for all endpoints or none. Nothing comes to them before
// [Keeper.Direct] is called, so until then [Keeper.Shrink] can close them again without a loss. steered are the
// endpoints for which a program chooses that knows the sockets, and so none of the new ones.
func (k *Keeper) Grow(ctx context.Context, n int, steered map[wire.Endpoint]bool) (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return errors.New("more sockets: the pack is stopping")
	}
	before := map[wire.Endpoint]int{}
	defer func() {
		if err != nil {
			k.undoGrow(before, steered)
		}
		k.polled.changed()
	}()
	for _, e := range k.endpoints() {
		s := k.open[e]
		if s.shared || e.QUIC || n <= len(s.listeners) {
			continue
		}
		if !steered[e] && !s.own && !e.IsPacket() { // of packet sockets the kernel chooses no others than it did
			if err := s.limit(len(s.listeners)); err != nil {
				return fmt.Errorf("more sockets for %s: %w", e, err)
			}
		}
		before[e] = len(s.listeners)
		for len(s.listeners) < n {
			l, err := k.openMore(ctx, e, s)
			if err != nil {
				return fmt.Errorf("more sockets for %s: %w", e, err)
			}
			deferAccept(l, s.deferred)
			s.listeners = append(s.listeners, l)
		}
	}
	return nil
}

// openMore opens the socket of the next worker.
func (k *Keeper) openMore(ctx context.Context, e wire.Endpoint, s *set) (socket, error) {
	if s.own {
		return k.openOwn(ctx, e, len(s.listeners))
	}
	config := reuseport.Config{Control: k.control()}
	if e.IsPacket() {
		p, err := config.ListenPacket(ctx, e.Network, s.address())
		if err != nil {
			return nil, err
		}
		return keep(opened(p))
	}
	more, err := config.ListenGroup(ctx, e.Network, s.address(), 1)
	if err != nil {
		return nil, err
	}
	return keep(opened(more[0]))
}

// undoGrow makes the numbers of sockets what they were.
func (k *Keeper) undoGrow(before map[wire.Endpoint]int, steered map[wire.Endpoint]bool) {
	for e, n := range before {
		s := k.open[e]
		s.closeLast(n)
		if !steered[e] && !s.own && !e.IsPacket() {
			// If it cannot (before Linux 5.3), the program goes on choosing among those that are left, which are all.
			reuseport.Detach(s.listeners[0])
		}
	}
}

// Direct has the kernel choose among the sockets of the first n workers only, but for the endpoints that are steered
// otherwise.
func (k *Keeper) Direct(n int, steered map[wire.Endpoint]bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, e := range k.endpoints() {
		s := k.open[e]
		if s.shared || s.own || e.QUIC || steered[e] {
			continue
		}
		if err := s.direct(n); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e, err))
		}
	}
	return errors.Join(errs...)
}

// absent are workers whose sockets nobody reads now: see [Keeper.DirectPackets].
func (s *set) direct(n int, absent ...int) error {
	if isPacket(s.listeners[0]) {
		return s.onGroup(func(l socket) error { return reuseport.AttachFlows(l, s.seed, n, absent...) })
	}
	if n < len(s.listeners) {
		return s.limit(n)
	}
	err := reuseport.Detach(s.listeners[0])
	if errors.Is(err, syscall.ENOENT) { // there was none
		return nil
	}
	return err
}

// DirectPackets has the kernel choose among the packet sockets of the first n workers but for those that are absent,
// since nobody reads them now. Of what is queued there nothing is lost: it waits for the next worker in that place.
func (k *Keeper) DirectPackets(n int, absent []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e, s := range k.open {
		if e.IsPacket() && !e.QUIC && !s.shared {
			s.direct(min(n, len(s.listeners)), absent...) // where it cannot, the kernel chooses as it did
		}
	}
}

// limit has the kernel choose among the first n sockets. The kernel counts in the order of listen(2): if a worker has
// shut one down, and it listens again, that is the last, and others than the first n are chosen.
func (s *set) limit(n int) error {
	return s.onGroup(func(l socket) error { return reuseport.Limit(l, n) })
}

// onGroup does something with the group of the sockets. Any of them will do, but for those that a worker has locked
// (SO_LOCK_FILTER).
func (s *set) onGroup(do func(socket) error) (err error) {
	for _, l := range s.listeners {
		if err = do(l); !errors.Is(err, os.ErrPermission) {
			break
		}
	}
	return err
}

// Shrink closes the sockets that n workers have no use for. Nothing may come to them any more, and the kernel goes on
// choosing among the others only, since a worker may still have a copy.
func (k *Keeper) Shrink(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e, s := range k.open {
		if !s.shared && !e.QUIC {
			s.closeLast(max(n, 1))
		}
	}
	k.polled.changed()
}
