package worker

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"sync"
)

// Tickets makes and reads the TLS session tickets of a worker, with keys that all workers share: a client that comes
// back resumes its session whichever it meets. Before it is told keys, it has one of its own. Its methods are safe for
// concurrent use.
//
// A session that is resumed is not authenticated again, so a ticket of one service must not open another. Each service
// has keys of its own, by its name and by what it demands of clients; a ticket of another cannot be read, and the
// handshake is a full one.
type Tickets struct {
	mu     sync.Mutex
	keys   [][]byte               // the newest first
	fixed  bool                   // they are the user's
	scopes map[string]*tls.Config // only for their keys
}

// NewTickets returns Tickets with a key of their own.
func NewTickets() *Tickets {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return &Tickets{keys: [][]byte{key}, scopes: map[string]*tls.Config{}}
}

// set takes the keys that the master sent. None are no change.
func (t *Tickets) set(keys [][]byte) {
	if len(keys) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.fixed {
		t.use(keys)
	}
}

// Fix takes keys of the user's, the first of which makes tickets, and those of the master no more.
func (t *Tickets) Fix(keys [][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fixed = true
	t.use(keys)
}

// use is called with mu locked.
func (t *Tickets) use(keys [][]byte) {
	t.keys = keys
	for scope, c := range t.scopes {
		c.SetSessionTicketKeys(t.ring(scope))
	}
}

// ring returns the keys of a scope, from which those of others cannot be found. It is called with mu locked.
func (t *Tickets) ring(scope string) (ring [][32]byte) {
	for _, key := range t.keys {
		of, err := hkdf.Key(sha256.New, key, nil, "gopherpack session tickets: "+scope, 32)
		if err != nil {
			panic(err) // of a length that cannot be
		}
		ring = append(ring, [32]byte(of))
	}
	return ring
}

// of returns what makes and reads the tickets of a scope.
func (t *Tickets) of(scope string) *tls.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.scopes[scope]
	if c == nil {
		c = new(tls.Config)
		c.SetSessionTicketKeys(t.ring(scope))
		t.scopes[scope] = c
	}
	return c
}

// Share returns a copy of a server's configuration whose tickets other workers can read, for the same service. So are
// those that its GetConfigForClient returns. One that deals with tickets itself, or wants none, does so still.
func (t *Tickets) Share(service string, c *tls.Config) *tls.Config {
	own := c.SessionTicketsDisabled || c.WrapSession != nil || c.UnwrapSession != nil
	if own && c.GetConfigForClient == nil {
		return c
	}
	c = c.Clone()
	if choose := c.GetConfigForClient; choose != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil {
				return chosen, err
			}
			return t.Share(service, chosen), nil
		}
	}
	if own {
		return c
	}
	by := t.of(fmt.Sprintf("%q, clients %d, %t", service, c.ClientAuth, c.VerifyPeerCertificate != nil))
	c.WrapSession, c.UnwrapSession = by.EncryptTicket, by.DecryptTicket
	verifyResumed(c)
	return c
}

// verifyResumed has VerifyPeerCertificate called for a session that is resumed, too, which package tls leaves out: by
// now it may accept other certificates than when the session began, such as after a reload. Whether the certificate is
// still of one of ClientCAs, and whether there must be one, package tls looks at again itself.
func verifyResumed(c *tls.Config) {
	verifyCertificate, verify := c.VerifyPeerCertificate, c.VerifyConnection
	if verifyCertificate == nil || c.ClientAuth == tls.NoClientCert {
		return
	}
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if state.DidResume {
			var raw [][]byte
			for _, cert := range state.PeerCertificates {
				raw = append(raw, cert.Raw)
			}
			if err := verifyCertificate(raw, state.VerifiedChains); err != nil {
				return err
			}
		}
		if verify != nil {
			return verify(state)
		}
		return nil
	}
}
