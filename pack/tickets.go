package pack

import (
	"crypto/rand"
	"crypto/tls"
	"sync"
	"time"
)

// A client that comes back resumes its TLS session with a ticket that the server encrypted. Each process makes its
// own key for that, so a client that meets another worker, or another generation, would have to do a full
// handshake: of N workers only one in N would know its ticket. So the master makes the keys, and changes them.

// ticketKey is a key for session tickets.
type ticketKey = [32]byte

const (
	ticketKeyLife = 24 * time.Hour // how long new tickets are made with one key
	ticketKeys    = 7              // how many are kept to read older ones; clients keep a ticket for a week at most
)

// ticketRing is the keys of a pack, the newest first.
type ticketRing struct {
	mu   sync.Mutex
	keys []ticketKey
	made time.Time // the newest
}

// due returns when the next key is to be added.
func (r *ticketRing) due() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made.Add(ticketKeyLife)
}

// all returns the keys, and when the newest was made.
func (r *ticketRing) all() ([][]byte, time.Time) { return r.message().Keys, r.made }

// inherit takes over the keys of another ring.
func (r *ticketRing) inherit(keys [][]byte, made time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made = made
	for _, key := range keys {
		r.keys = append(r.keys, ticketKey{})
		copy(r.keys[len(r.keys)-1][:], key)
	}
}

// rotate adds a key and drops the oldest.
func (r *ticketRing) rotate(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made = now
	var key ticketKey
	rand.Read(key[:]) // never fails
	r.keys = append([]ticketKey{key}, r.keys[:min(len(r.keys), ticketKeys-1)]...)
}

// message returns the message that tells a worker the keys.
func (r *ticketRing) message() message {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := message{Type: msgTickets}
	for _, key := range r.keys {
		m.Keys = append(m.Keys, key[:])
	}
	return m
}

// ticketKeeper makes and reads the tickets of a worker. Before the first set it does so with keys of its own.
type ticketKeeper struct {
	config tls.Config // only for its keys
}

// set takes the keys that the master sent, which must not be none.
func (k *ticketKeeper) set(keys [][]byte) {
	ring := make([]ticketKey, len(keys))
	for i, key := range keys {
		copy(ring[i][:], key)
	}
	if len(ring) > 0 {
		k.config.SetSessionTicketKeys(ring)
	}
}

// share returns a copy of a server's configuration whose tickets the keeper makes and reads. One that deals with
// tickets itself, or wants none, stays as it is.
func (k *ticketKeeper) share(c *tls.Config) *tls.Config {
	if c.SessionTicketsDisabled || c.WrapSession != nil || c.UnwrapSession != nil {
		return c
	}
	c = c.Clone()
	c.WrapSession, c.UnwrapSession = k.config.EncryptTicket, k.config.DecryptTicket
	return c
}
