package sockets

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// openEach opens a socket for each worker, at an address of its own.
func (k *Keeper) openEach(ctx context.Context, e wire.Endpoint, workers int) (*set, error) {
	s := &set{own: true}
	for i := range max(workers, 1) {
		l, err := k.openOwn(ctx, e, i)
		if err != nil {
			s.release()
			return nil, err
		}
		s.listeners = append(s.listeners, l)
	}
	return s, nil
}

// openOwn opens the socket of worker i.
func (k *Keeper) openOwn(ctx context.Context, e wire.Endpoint, i int) (socket, error) {
	address, err := ownAddress(ctx, e, i)
	if err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: k.control()}
	config.SetMultipathTCP(false) // as all sockets here
	l, err := config.Listen(ctx, e.Network, address)
	if err != nil {
		return nil, err
	}
	return keep(opened(l))
}

// ownAddress returns worker i's address.
func ownAddress(ctx context.Context, e wire.Endpoint, i int) (string, error) {
	host, service, err := net.SplitHostPort(e.Address)
	if err != nil {
		return "", fmt.Errorf("listen %s: %w", e, err)
	}
	port, err := net.DefaultResolver.LookupPort(ctx, e.Network, service)
	if err != nil {
		return "", fmt.Errorf("listen %s: %w", e, err)
	}
	if port != 0 {
		port += i
	}
	if port > 1<<16-1 {
		return "", fmt.Errorf("listen %s: there is no port %d for worker %d: choose a lower one", e, port, i)
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}
