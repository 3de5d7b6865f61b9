package sockets

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
)

// TestStaleAtOnce has many start at once where a process has left its socket: one gets the address, and the others are
// told that it is in use.
func TestStaleAtOnce(t *testing.T) {
	for range 8 {
		path := t.TempDir() + "/x"
		stale, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		stale.(*net.UnixListener).SetUnlinkOnClose(false)
		stale.Close()
		var all sync.WaitGroup
		begin := make(chan struct{})
		errs := make([]error, 16)
		for i := range errs {
			k := keeper(t)
			all.Go(func() {
				<-begin
				_, errs[i] = k.Open(t.Context(), local(path), 1)
			})
		}
		close(begin)
		all.Wait()
		got := 0
		for _, err := range errs {
			if err == nil {
				got++
			} else if !errors.Is(err, syscall.EADDRINUSE) {
				t.Error(err)
			}
		}
		if got != 1 {
			t.Fatalf("%d got the address", got)
		}
	}
}
