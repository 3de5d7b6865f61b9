//go:build linux

package drain

import (
	"context"
	"errors"
	"net"
	"testing"
)

// finicky is a server that takes Shutdown for nothing when its Serve has returned, as hertz does, or waits in it for
// Serve to return.
type finicky struct {
	waits  bool
	serves chan net.Listener
	served chan struct{}
	hooked bool
}

func (s *finicky) Serve(l net.Listener) error {
	defer close(s.served)
	s.serves <- l
	_, err := l.Accept()
	return err
}

func (s *finicky) Shutdown(context.Context) error {
	select {
	case <-s.served:
		return errors.New("it is not running")
	default:
	}
	if s.waits {
		<-s.served
	} else {
		(<-s.serves).Close()
	}
	s.hooked = true
	return nil
}

func (s *finicky) Close() error { return nil }

// TestForeignIsRunning wants a server to be told to end while it still runs.
func TestForeignIsRunning(t *testing.T) {
	for _, waits := range []bool{false, true} {
		own := &finicky{waits: waits, serves: make(chan net.Listener, 1), served: make(chan struct{})}
		s := Foreign(own)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		waitFor(t, "its Serve", func() bool { return len(own.serves) == 1 })
		s.BeginDrain(0, false)
		l.Close()
		<-served
		if err := s.Shutdown(t.Context()); err != nil || !own.hooked {
			t.Errorf("waits %v: %v, what it does in the end was done: %v", waits, err, own.hooked)
		}
		<-own.served
	}
}

// TestForeignIgnoresContext has a Shutdown never return.
func TestForeignIgnoresContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := Foreign(&stranger{shutdown: func(context.Context) error { cancel(); select {} }})
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
