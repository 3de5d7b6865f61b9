package sockets

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestAwait waits for a connection to each socket, of which some came after it had waited before. It wants to be told,
// and no connection after that to wake this process.
func TestAwait(t *testing.T) {
	k := keeper(t)
	if await(t, k, time.Millisecond) {
		t.Fatal("there is no socket")
	}
	for _, e := range []wire.Endpoint{tcp("127.0.0.1:0"), tcp("localhost:0"), local(t.TempDir() + "/x")} {
		address := open(t, k, e, 2).Address
		if await(t, k, time.Millisecond) {
			t.Fatalf("%s: nobody has connected", e)
		}
		for _, before := range []bool{false, true} {
			told := make(chan bool, 1)
			if !before {
				go func() { told <- await(t, k, patience) }()
			}
			c, err := net.Dial(e.Network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if before {
				told <- await(t, k, patience)
			}
			if !<-told {
				t.Errorf("%s: not told of a connection; it came before: %v", e, before)
			}
			notPolled(t, k)
		}
		k.Keep(nil) // with what waits there
	}
}

// TestAwaitNot waits at sockets that become others, and at one that was shut down, to which none can come: that must
// not wake it again and again.
func TestAwaitNot(t *testing.T) {
	k := keeper(t)
	e := tcp("127.0.0.1:0")
	open(t, k, e, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	told := make(chan bool, 1)
	go func() { told <- k.Await(ctx) }()
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		k.mu.Lock()
		waits = k.polled.bell != nil
		k.mu.Unlock()
	}
	k.Keep(nil)
	if <-told || ctx.Err() != nil {
		t.Errorf("the sockets are closed: told of a connection, or nothing: %v", ctx.Err())
	}
	u := local(t.TempDir() + "/x")
	open(t, k, u, 1)
	if err := shutdown(k.open[u].listeners[0]); err != nil {
		t.Fatal(err)
	}
	if await(t, k, 10*time.Millisecond) {
		t.Error("it was shut down: told of a connection")
	}
}

func await(t *testing.T, k *Keeper, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return k.Await(ctx)
}
