package worker

import "crypto/tls"

// ticketKeeper makes and reads the TLS session tickets of a worker, with keys that all workers share: a client that
// comes back resumes its session whichever it meets. Before the first set it does so with keys of its own.
type ticketKeeper struct {
	config tls.Config // only for its keys
}

// set takes the keys that the master sent, which must not be none.
func (k *ticketKeeper) set(keys [][]byte) {
	ring := make([][32]byte, len(keys))
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
