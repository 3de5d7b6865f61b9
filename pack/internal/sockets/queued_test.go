//go:build unix

package sockets

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

func TestQueued(t *testing.T) {
	k := keeper(t)
	if q := k.Queued(); q != nil {
		t.Errorf("nothing is open, and something queued: %v", q)
	}
	e, u := tcp("127.0.0.1:0"), local(t.TempDir()+"/x")
	address := open(t, k, e, 1).Address
	is := func(want ...Ref) {
		t.Helper()
		got := k.Queued()
		for end := time.Now().Add(patience); !slices.Equal(got, want) && time.Now().Before(end); got = k.Queued() {
			time.Sleep(time.Millisecond) // the kernel may put off the end of a handshake
		}
		if !slices.Equal(got, want) {
			t.Errorf("queued on %v, want %v", got, want)
		}
	}
	dial := func(network, address string) {
		t.Helper()
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	accept := func(e wire.Endpoint) {
		t.Helper()
		c, err := listener(t, k, e, 0).Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	is()
	dial("tcp", address)
	is(Ref{e, 0})
	is(Ref{e, 0}) // it is not used up
	open(t, k, u, 1)
	is(Ref{e, 0})
	dial("unix", u.Address)
	is(Ref{e, 0}, Ref{u, 0})
	accept(e)
	is(Ref{u, 0})
	dial("tcp", address)
	k.Keep(map[wire.Endpoint]bool{e: true})
	is(Ref{e, 0})
	accept(e)
	is()
}

// BenchmarkQueued asks about as many sockets as a large machine's pack has.
func BenchmarkQueued(b *testing.B) {
	k := New(Files{})
	defer k.Close()
	for i := range 8 {
		e := wire.Endpoint{Network: "tcp", Address: "127.0.0.1:0", Index: i}
		if _, err := k.Open(b.Context(), e, 1024); err != nil {
			b.Skip(err)
		}
	}
	k.Queued()
	b.ReportAllocs()
	for b.Loop() {
		if q := k.Queued(); q != nil {
			b.Fatal(q)
		}
	}
}
