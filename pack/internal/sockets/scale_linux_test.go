package sockets

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

// chosen makes many connections to an endpoint and returns which of its sockets got some.
func chosen(t *testing.T, k *Keeper, info Info) []int {
	t.Helper()
	conns := 20 * info.Sockets
	for range conns {
		c, err := net.Dial(info.Endpoint.Network, info.Address)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	var got []int
	for end := time.Now().Add(patience); conns > 0 && time.Now().Before(end); {
		for i, l := range k.Listeners(info.Endpoint, info.Sockets) {
			if n := acceptAll(t, l); n > 0 {
				conns -= n
				got = append(got, i)
			}
		}
	}
	if conns != 0 {
		t.Errorf("%d connections are missing", conns)
	}
	slices.Sort(got)
	return slices.Compact(got)
}

// acceptAll empties the queue of a socket.
func acceptAll(t *testing.T, c syscall.Conn) (n int) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) {
		for {
			conn, _, err := syscall.Accept4(int(fd), syscall.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			syscall.Close(conn)
			n++
		}
	})
	return n
}

func TestScale(t *testing.T) {
	k := keeper(t)
	e, u := tcp("127.0.0.1:0"), local(t.TempDir()+"/x")
	open(t, k, e, 2)
	open(t, k, u, 2)
	is := func(when string, sockets int, want ...int) {
		t.Helper()
		info := k.Infos()[0]
		if info.Sockets != sockets {
			t.Errorf("%s: %d sockets, want %d", when, info.Sockets, sockets)
		}
		if got := chosen(t, k, info); !slices.Equal(got, want) {
			t.Errorf("%s: connections came to sockets %v, want %v", when, got, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is("at first", 2, 0, 1)
	must(k.Grow(t.Context(), 1, nil))
	is("grown to less", 2, 0, 1)
	must(k.Grow(t.Context(), 4, nil))
	is("grown", 4, 0, 1)
	must(k.Direct(4, nil))
	is("directed", 4, 0, 1, 2, 3)
	must(k.Direct(4, nil))
	must(k.Direct(3, nil))
	is("directed to less", 4, 0, 1, 2)
	k.Shrink(3)
	is("shrunk", 3, 0, 1, 2)
	k.Shrink(0)
	is("shrunk to nothing", 1, 0)
	must(k.Direct(1, nil))
	if err := k.Direct(0, nil); err == nil {
		t.Error("no error when nobody is to be chosen")
	}
	if n := k.Infos()[1].Sockets; n != 1 {
		t.Errorf("%d sockets for %s", n, u)
	}
}

// TestScaleSteered leaves alone the program that steers.
func TestScaleSteered(t *testing.T) {
	k := keeper(t)
	e := tcp("127.0.0.1:0")
	open(t, k, e, 3)
	steered := map[wire.Endpoint]bool{e: true}
	if err := reuseport.Limit(k.Listeners(e, 1)[0], 2); err != nil { // which stands for any program
		t.Fatal(err)
	}
	if err := errors.Join(k.Grow(t.Context(), 4, steered), k.Direct(4, steered)); err != nil {
		t.Fatal(err)
	}
	if err := k.Grow(failAfter(t, 2), 8, steered); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := chosen(t, k, k.Infos()[0]); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("connections came to sockets %v", got)
	}
}

// failing is a context that ends when it has been looked at some times.
type failing struct {
	context.Context
	left int
}

func (f *failing) Err() error {
	if f.left--; f.left < 0 {
		return context.Canceled
	}
	return nil
}

// failAfter returns a context that lets n sockets be opened.
func failAfter(t *testing.T, n int) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // for context.Cause
	return &failing{ctx, n}
}

// TestGrowIsAllOrNothing fails at each of the sockets.
func TestGrowIsAllOrNothing(t *testing.T) {
	k := keeper(t)
	for i := range 2 {
		open(t, k, wire.Endpoint{Network: "tcp", Address: "127.0.0.1:0", Index: i}, 2)
	}
	before := k.Infos()
	for n := range 4 {
		if err := k.Grow(failAfter(t, n), 4, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("with %d sockets: %v", n, err)
		}
		if got := k.Infos(); !slices.Equal(got, before) {
			t.Errorf("with %d sockets: %+v, want %+v", n, got, before)
		}
		for _, info := range before {
			if got := chosen(t, k, info); !slices.Equal(got, []int{0, 1}) {
				t.Errorf("with %d sockets, connections to %s came to %v", n, info.Endpoint, got)
			}
			if err := reuseport.Detach(k.Listeners(info.Endpoint, 1)[0]); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("with %d sockets, a program was left: %v", n, err)
			}
		}
	}
	if err := k.Grow(failAfter(t, 4), 4, nil); err != nil {
		t.Errorf("with 4 sockets: %v", err)
	}
}
