//go:build unix

package worker

import (
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test"
)

func key(of byte) []byte { return slices.Repeat([]byte{of}, 32) }

// TestTicketsAreShared resumes, in a second worker, a session that the first began, also after the keys have changed.
func TestTicketsAreShared(t *testing.T) {
	var workers [2]ticketKeeper
	client := &tls.Config{
		InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1), ServerName: "x",
	}
	base := &tls.Config{Certificates: []tls.Certificate{test.SelfSigned(t)}}
	for i, keys := range [][][]byte{{key(1)}, {key(1)}, {key(2), key(1)}, {key(2), key(1)}, nil} {
		w := &workers[i%2]
		w.set(keys) // no keys are no change
		if resumed := handshake(t, w.share(base), client); resumed != (i > 0) {
			t.Errorf("connection %d: resumed %v", i, resumed)
		}
	}
	for _, own := range []*tls.Config{
		{SessionTicketsDisabled: true}, {WrapSession: base.EncryptTicket}, {UnwrapSession: base.DecryptTicket},
	} {
		if workers[0].share(own) != own {
			t.Error("a configuration that deals with tickets itself was changed")
		}
	}
}

// handshake reports whether a client resumes its session.
func handshake(t *testing.T, server, client *tls.Config) bool {
	t.Helper()
	ours, theirs := socketPair(t)
	served := make(chan error, 1)
	go func() {
		_, err := io.WriteString(tls.Server(theirs, server), "x")
		theirs.Close()
		served <- err
	}()
	c := tls.Client(ours, client)
	_, err := c.Read(make([]byte, 1)) // with it comes the ticket
	if err := errors.Join(err, <-served); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().DidResume
}
