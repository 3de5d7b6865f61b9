package sockets

import (
	"context"
	"errors"
	"net"
	"strings"
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
	if _, err := k.Conn(e, 0); err != nil {
		t.Error(err)
	}
	if n := len(k.Infos()); n != 2 {
		t.Errorf("open are %d endpoints", n)
	}
	if _, err := k.Conn(slow, 0); err == nil {
		t.Error("a socket of a name that is not resolved")
	}
	if err := k.Grow(t.Context(), 2, nil); err != nil {
		t.Error(err)
	}
	k.Queued()
	k.Quiesce(0)
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
