package test

import (
	"net"
	"testing"
)

// Connected returns both ends of a connection to a listener. The test closes them at its end.
func Connected(t testing.TB, l net.Listener) (client, accepted net.Conn) {
	t.Helper()
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	accepted, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return client, accepted
}
