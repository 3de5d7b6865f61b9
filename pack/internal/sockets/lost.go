package sockets

import "github.com/gopherpack/gopherpack/pack/internal/wire"

// Lost reports whether somebody has removed or replaced the file of a Unix socket, to which nobody can connect any more.
func (k *Keeper) Lost() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e, s := range k.open {
		if s.isLost(e) {
			return true
		}
	}
	return false
}

// GiveUpLost gives other names to endpoints whose file is lost, which it returns: so the endpoint can be opened anew,
// for workers that are to come, while those that there are serve what is queued.
func (k *Keeper) GiveUpLost() map[wire.Endpoint]wire.Endpoint {
	k.mu.Lock()
	defer k.mu.Unlock()
	renamed := map[wire.Endpoint]wire.Endpoint{}
	for _, e := range k.endpoints() {
		s := k.open[e]
		if !s.isLost(e) {
			continue
		}
		now := e
		for now.Index = -1; k.open[now] != nil; now.Index-- { // which no worker asks for
		}
		delete(k.open, e)
		k.open[now], renamed[e] = s, now
	}
	k.polled.changed()
	return renamed
}

// isLost reports whether the file of the endpoint is lost, which has not been given up yet.
func (s *set) isLost(e wire.Endpoint) bool { return s.file != nil && e.Index >= 0 && !s.file.inPlace() }
