//go:build unix

package worker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test"
)

func key(of byte) []byte { return slices.Repeat([]byte{of}, 32) }

// client returns the configuration of a client that keeps one session.
func client(t *testing.T, version uint16) *tls.Config {
	t.Helper()
	return &tls.Config{
		InsecureSkipVerify: true, ServerName: "x", MinVersion: version, MaxVersion: version,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), Certificates: []tls.Certificate{test.SelfSigned(t)},
	}
}

// TestTicketsAreShared resumes, in a second worker, a session that the first began, also after the keys have changed.
func TestTicketsAreShared(t *testing.T) {
	base := &tls.Config{Certificates: []tls.Certificate{test.SelfSigned(t)}}
	chosen := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return base, nil }}
	asking := base.Clone()
	asking.ClientAuth = tls.RequireAnyClientCert
	asking.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return nil }
	for name, config := range map[string]*tls.Config{
		"plain": base, "GetConfigForClient": chosen, "client certificates": asking,
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			workers := [2]*Tickets{NewTickets(), NewTickets()}
			c := client(t, version)
			for i, keys := range [][][]byte{{key(1)}, {key(1)}, {key(2), key(1)}, {key(2), key(1)}, nil} {
				w := workers[i%2]
				w.set(keys) // no keys are no change
				resumed, err := handshake(t, w.Share("a", config), c)
				if resumed != (i > 0) || err != nil {
					t.Errorf("%s, %s: connection %d: resumed %v, %v", name, tls.VersionName(version), i, resumed, err)
				}
			}
		}
	}
}

// TestFixedTickets has keys of the user's, which those of the master do not replace.
func TestFixedTickets(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{test.SelfSigned(t)}}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		workers := [2]*Tickets{NewTickets(), NewTickets()}
		c := client(t, version)
		for i, step := range []struct {
			fixed   [][]byte
			resumed bool
		}{
			{[][]byte{key(1)}, false},
			{[][]byte{key(1)}, true},
			{[][]byte{key(2), key(1)}, true}, // the ticket that it makes is of key 2
			{[][]byte{key(2)}, true},
			{[][]byte{key(3)}, false},
			{[][]byte{key(3)}, true},
		} {
			w := workers[i%2]
			w.Fix(step.fixed)
			w.set([][]byte{key(byte(10 + i))})
			resumed, err := handshake(t, w.Share("a", config), c)
			if resumed != step.resumed || err != nil {
				t.Errorf("%s: connection %d: resumed %v, %v", tls.VersionName(version), i, resumed, err)
			}
		}
	}
}

// TestOwnTickets leaves configurations alone that deal with tickets themselves, or want none.
func TestOwnTickets(t *testing.T) {
	var base tls.Config
	for _, own := range []*tls.Config{
		{SessionTicketsDisabled: true}, {WrapSession: base.EncryptTicket}, {UnwrapSession: base.DecryptTicket},
	} {
		if NewTickets().Share("a", own) != own {
			t.Error("a configuration that deals with tickets itself was changed")
		}
		chosen := &tls.Config{
			SessionTicketsDisabled: true, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return own, nil },
		}
		if got, err := NewTickets().Share("a", chosen).GetConfigForClient(nil); got != own || err != nil {
			t.Errorf("one that was chosen was changed, %v", err)
		}
	}
	failing := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, io.EOF }}
	if got, err := NewTickets().Share("a", failing).GetConfigForClient(nil); got != nil || err != io.EOF {
		t.Errorf("%v, %v", got, err)
	}
}

// TestTicketsOpenNothingElse brings a ticket of a service to another, or to the same after what it demands has changed.
func TestTicketsOpenNothingElse(t *testing.T) {
	never := errors.New("not this certificate")
	refuse := func([][]byte, [][]*x509.Certificate) error { return never }
	accept := func([][]byte, [][]*x509.Certificate) error { return nil }
	one, other := x509.NewCertPool(), x509.NewCertPool()
	server := func(auth tls.ClientAuthType, verify func([][]byte, [][]*x509.Certificate) error, cas *x509.CertPool) *tls.Config {
		return &tls.Config{
			Certificates: []tls.Certificate{test.SelfSigned(t)}, ClientAuth: auth, VerifyPeerCertificate: verify, ClientCAs: cas,
		}
	}
	any, demands := tls.RequireAnyClientCert, tls.RequireAndVerifyClientCert
	for _, tt := range []struct {
		name          string
		service       string // the second; the first is "a"
		first, second *tls.Config
		fails         bool
	}{
		{"another service", "b", server(any, nil, nil), server(any, nil, nil), false},
		{"without certificates first", "a", server(tls.NoClientCert, nil, nil), server(any, nil, nil), false},
		{"a verified one is demanded now", "a", server(any, nil, nil), server(demands, nil, one), true},
		{"of another authority", "a", server(demands, nil, one), server(demands, nil, other), true},
		{"another service accepts others", "b", server(any, accept, nil), server(any, refuse, nil), true},
		{"something is asked now", "a", server(any, nil, nil), server(any, refuse, nil), true},
		{"others are accepted now", "a", server(any, accept, nil), server(any, refuse, nil), true},
		{"as before, but for a reason of its own", "a", server(any, accept, nil), func() *tls.Config {
			c := server(any, accept, nil)
			c.VerifyConnection = func(tls.ConnectionState) error { return never }
			return c
		}(), true},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, chosen := range []bool{false, true} {
				tickets := NewTickets()
				c := client(t, version)
				leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
				if err != nil {
					t.Fatal(err)
				}
				if tt.first.ClientCAs != nil {
					tt.first.ClientCAs.AddCert(leaf)
				}
				share := func(service string, c *tls.Config) *tls.Config {
					if !chosen {
						return tickets.Share(service, c)
					}
					return tickets.Share(service, &tls.Config{
						GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c, nil },
					})
				}
				for i := range 2 {
					if resumed, err := handshake(t, share("a", tt.first), c); err != nil || resumed != (i > 0) {
						t.Fatalf("%s, %s: the first: resumed %v, %v", tt.name, tls.VersionName(version), resumed, err)
					}
				}
				resumed, err := handshake(t, share(tt.service, tt.second), c)
				if resumed || (err != nil) != tt.fails {
					t.Errorf("%s, %s, chosen %v: resumed %v, %v", tt.name, tls.VersionName(version), chosen, resumed, err)
				}
			}
		}
	}
}

// handshake reports whether a client resumes its session, and why it cannot even begin one.
func handshake(t *testing.T, server, client *tls.Config) (resumed bool, err error) {
	t.Helper()
	ours, theirs := socketPair(t)
	served := make(chan error, 1)
	go func() {
		_, err := io.WriteString(tls.Server(theirs, server), "x")
		theirs.Close()
		served <- err
	}()
	c := tls.Client(ours, client)
	_, err = c.Read(make([]byte, 1)) // with it comes the ticket
	ours.Close()
	return err == nil && c.ConnectionState().DidResume, errors.Join(err, <-served)
}
