package sockets

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// stuckResolver has names be resolved by a server that never answers, until the test ends. It tells of each question.
func stuckResolver(t *testing.T) (asked <-chan struct{}) {
	t.Helper()
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	questions := make(chan struct{}, 100)
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		questions <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	return questions
}

// TestOpenHoldsNothingUp uses a keeper that is resolving a name.
func TestOpenHoldsNothingUp(t *testing.T) {
	asked := stuckResolver(t)
	k := keeper(t)
	e, u := tcp("127.0.0.1:0"), local(t.TempDir()+"/x")
	open(t, k, e, 1)
	slow := tcp("stuck.example:0")
	ended := make(chan error)
	for range 3 { // of which one asks
		go func() {
			_, err := k.Open(context.Background(), slow, 1)
			ended <- err
		}()
	}
	<-asked

	open(t, k, u, 1)
	if err := handOut(k, e, 0); err != nil {
		t.Error(err)
	}
	if n := len(k.Infos()); n != 2 {
		t.Errorf("open are %d endpoints", n)
	}
	if err := handOut(k, slow, 0); err == nil {
		t.Error("a socket of a name that is not resolved")
	}
	if err := k.Grow(t.Context(), 2, nil); err != nil {
		t.Error(err)
	}
	k.Queued()
	k.QuiesceEndpoint(e)
	k.Keep(map[wire.Endpoint]bool{e: true})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := k.Open(ctx, slow, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who does not want to wait: %v", err)
	}
	k.Close()
	for range 3 {
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "the pack is stopping") {
			t.Errorf("who waits when it is closed: %v", err)
		}
	}
}

// TestOpenerGivesUp has another caller open what the first does not want any more.
func TestOpenerGivesUp(t *testing.T) {
	asked := stuckResolver(t)
	k := keeper(t)
	slow := tcp("stuck.example:0")
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := k.Open(ctx, slow, 1)
		first <- err
	}()
	<-asked
	second := make(chan error)
	go func() {
		_, err := k.Open(context.Background(), slow, 1)
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "canceled") {
		t.Errorf("the first: %v", err)
	}
	<-asked // by the second
	k.Close()
	if err := <-second; err == nil || !strings.Contains(err.Error(), "the pack is stopping") {
		t.Errorf("the second: %v", err)
	}
}

// TestCloseWhileOpening closes keepers at any moment of an Open: nothing stays open.
func TestCloseWhileOpening(t *testing.T) {
	path := t.TempDir() + "/x"
	for i := range 200 {
		k := New(Files{Mode: 0o600})
		ended := make(chan error, 2)
		for _, e := range []wire.Endpoint{tcp("127.0.0.1:0"), local(path)} {
			go func() {
				_, err := k.Open(context.Background(), e, 4)
				ended <- err
			}()
		}
		time.Sleep(time.Duration(i) * 2 * time.Microsecond)
		k.Close()
		for range 2 {
			if err := <-ended; err != nil && !strings.Contains(err.Error(), "the pack is stopping") {
				t.Error(err)
			}
		}
		if infos := k.Infos(); infos != nil {
			t.Errorf("open are %v", infos)
		}
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			t.Error("the Unix socket is open")
		}
	}
}

// TestOpenAtOnce has many callers open the same.
func TestOpenAtOnce(t *testing.T) {
	k := keeper(t)
	for i := range 20 {
		e := wire.Endpoint{Network: "tcp", Address: "localhost:0", Index: i}
		infos := make([]Info, 10)
		var callers sync.WaitGroup
		for i := range infos {
			callers.Go(func() {
				var err error
				if infos[i], err = k.Open(t.Context(), e, 2); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if len(slices.Compact(infos)) != 1 {
			t.Errorf("the callers got %v", infos)
		}
	}
}

// TestAllAtOnce calls everything at the same time.
func TestAllAtOnce(t *testing.T) {
	k := New(Files{Mode: 0o600})
	dir := t.TempDir()
	endpoints := []wire.Endpoint{
		tcp("127.0.0.1:0"), {Network: "tcp", Address: "127.0.0.1:0", Index: 1}, local(dir + "/x"),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var calls sync.WaitGroup
	for _, call := range []func(i int){
		func(i int) { k.Open(ctx, endpoints[i%3], 2) },
		func(i int) { k.Open(ctx, endpoints[i%3], 3) },
		func(int) { k.Infos() },
		func(int) { k.Queued() },
		func(i int) { k.Grow(ctx, 2+i%3, nil) },
		func(i int) { k.Direct(2+i%3, nil) },
		func(i int) { k.Shrink(2 + i%3) },
		func(i int) { k.Keep(map[wire.Endpoint]bool{endpoints[i%3]: true}) },
		func(i int) { handOut(k, endpoints[i%3], i%4) },
		func(i int) { k.Listeners(endpoints[i%3], i%4) },
		func(i int) { k.QuiesceEndpoint(endpoints[i%3]) },
		func(int) {
			_, files, _ := k.Export(nil, nil)
			for _, f := range files {
				f.Close()
			}
		},
	} {
		calls.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				call(i)
			}
		})
	}
	calls.Wait()
	k.QuiesceFinal(0)
	k.Close()
	if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
		t.Errorf("in the directory are %v, %v", entries, err)
	}
}
