package sockets

import (
	"net"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// Listener returns a listener itself, which stays the keeper's, for a process that accepts from it on its own.
func (k *Keeper) Listener(e wire.Endpoint, i int) (net.Listener, error) {
	c, err := k.Conn(e, i)
	if err != nil {
		return nil, err
	}
	return c.(net.Listener), nil
}
