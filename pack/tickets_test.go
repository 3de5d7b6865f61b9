//go:build linux

package pack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"slices"
	"testing"
	"time"
)

func TestTicketRing(t *testing.T) {
	var r ticketRing
	var seen []ticketKey
	for range 2 * ticketKeys {
		r.rotate(time.Now())
		if slices.Contains(seen, r.keys[0]) {
			t.Fatal("a key comes again")
		}
		seen = append([]ticketKey{r.keys[0]}, seen...)
		if want := seen[:min(len(seen), ticketKeys)]; !slices.Equal(r.keys, want) {
			t.Fatalf("%d keys, not the newest", len(r.keys))
		}
	}
}

// TestTicketsAreShared resumes, in a second server, a session that the first began, also after a rotation.
func TestTicketsAreShared(t *testing.T) {
	var ring ticketRing
	ring.rotate(time.Now())
	servers := make([]ticketKeeper, 2)
	client := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1), ServerName: "x"}
	base := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	connect := func(k *ticketKeeper) bool {
		k.set(ring.message().Keys)
		l, err := tls.Listen("tcp", "127.0.0.1:0", k.share(base))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if c, err := l.Accept(); err == nil {
				io.WriteString(c, "x")
				c.Close()
			}
		}()
		c, err := tls.Dial("tcp", l.Addr().String(), client)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err != nil { // with it comes the ticket
			t.Fatal(err)
		}
		return c.ConnectionState().DidResume
	}
	if connect(&servers[0]) {
		t.Error("the first connection resumed a session")
	}
	for i := range 20 {
		if i%5 == 0 {
			ring.rotate(time.Now())
		}
		if !connect(&servers[i%2]) {
			t.Errorf("connection %d, to server %d, did not resume", i, i%2)
		}
	}
	own := &tls.Config{SessionTicketsDisabled: true}
	if servers[0].share(own) != own {
		t.Error("a configuration that wants no tickets was changed")
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
