package sockets

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

// The sockets of a QUIC endpoint are one for each worker process, of whatever generation: a connection ends with its
// process, and until then all that is sent on it must come there. A process has a place, which it leaves to another when
// it has ended. The connection ID tells the place, which is the number of the socket in the kernel's group. So none is
// closed as long as there are workers, since that would number others anew.

// openPlace opens the sockets of a QUIC endpoint up to a place, to which nothing comes before [Keeper.DirectQUIC] says so.
// It does nothing for others. It is called with mu locked.
func (k *Keeper) openPlace(e wire.Endpoint, s *set, place int) error {
	for s.secret != nil && !s.shared && len(s.listeners) <= place {
		l, err := k.openMore(context.Background(), e, s)
		if err != nil {
			return fmt.Errorf("one more socket for %s: %w", e, err)
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// newSecret makes the sockets those of QUIC, of which workers take the first places.
func (s *set) newSecret() error {
	s.secret = make([]byte, wire.QUICSecretLen)
	rand.Read(s.secret)
	if s.shared {
		return nil
	}
	first := make([]int, len(s.listeners))
	for i := range first {
		first[i] = i
	}
	return s.directQUIC(first, first)
}

// Secret returns the secret of a QUIC endpoint; nil of others.
func (k *Keeper) Secret(e wire.Endpoint) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.open[e]; s != nil {
		return s.secret
	}
	return nil
}

// DirectQUIC has new connections of QUIC come to the processes in fresh places, and others to theirs, if it is known.
func (k *Keeper) DirectQUIC(fresh, known []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.open {
		if s.secret != nil && !s.shared {
			s.directQUIC(fresh, known) // it took the first program: it takes others
		}
	}
}

func (s *set) directQUIC(fresh, known []int) error {
	key := wire.QUICIDKey(s.secret)
	return s.onGroup(func(l socket) error { return reuseport.AttachQUIC(l, key, fresh, known) })
}
