package sockets

import "github.com/gopherpack/gopherpack/pack/internal/wire"

// Ref names a socket.
type Ref struct {
	Endpoint wire.Endpoint
	Socket   int
}

// Queued returns the sockets on which connections wait to be accepted, by one poll(2) of all of them; nil where the
// system has no poll. A Unix socket that refuses connections for good is not among them.
func (k *Keeper) Queued() []Ref {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.polled.queued(k)
}
