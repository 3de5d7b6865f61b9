//go:build unix

package worker

import (
	"errors"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestControlKeepsTheRules wants nothing to be sent that the master would kill the worker for.
func TestControlKeepsTheRules(t *testing.T) {
	ours, theirs := socketPair(t)
	c := newControl(wire.NewConn(theirs))
	defer c.close()
	refused := func(m wire.Message) {
		t.Helper()
		if err := c.say(m); err == nil {
			t.Errorf("%s is sent", m.Type)
		}
	}
	sent := func(m wire.Message) {
		t.Helper()
		if err := c.say(m); err != nil {
			t.Error(err)
		}
	}
	beat := wire.Message{Type: wire.Beat, Vitals: &wire.Vitals{}}
	refused(beat)
	refused(wire.Message{Type: wire.Stopping})
	sent(wire.Message{Type: wire.Hello, Version: wire.Version})
	refused(wire.Message{Type: wire.Hello})
	refused(wire.Message{Type: wire.Listen})
	refused(wire.Message{Type: wire.Closed})
	sent(beat)
	sent(wire.Message{Type: wire.Ready})
	sent(wire.Message{Type: wire.Stopping})
	refused(wire.Message{Type: wire.Stopping})
	refused(wire.Message{Type: wire.End})
	if c.drains(); !c.isDraining() {
		t.Error("it does not drain")
	}
	sent(wire.Message{Type: wire.Closed})
	refused(wire.Message{Type: wire.Quiesce})
	sent(wire.Message{Type: wire.End})
	for _, m := range []wire.Message{beat, {Type: wire.HandoverEnded}, {Type: wire.End}} {
		if err := c.say(m); !errors.Is(err, errEnded) {
			t.Errorf("%s after the end: %v", m.Type, err)
		}
	}
	ours.Close()
}

// TestControlWaits has the master not read: beats do not pile up, and what cannot be sent is reported when the master
// is gone.
func TestControlWaits(t *testing.T) {
	ours, theirs := socketPair(t)
	c := newControl(wire.NewConn(theirs))
	defer c.close()
	if err := c.say(wire.Message{Type: wire.Hello, Version: wire.Version}); err != nil {
		t.Fatal(err)
	}
	c.drains()
	var waiting []<-chan error
	for range 10000 { // more than fits
		waiting = append(waiting, c.post(wire.Message{Type: wire.HandoverEnded}))
		c.post(wire.Message{Type: wire.Beat, Vitals: &wire.Vitals{}})
	}
	c.mu.Lock()
	beats := 0
	for _, l := range c.outbox {
		if l.Type == wire.Beat {
			beats++
		}
	}
	c.mu.Unlock()
	if beats > 1 {
		t.Errorf("%d beats wait", beats)
	}
	ours.Close()
	if err := <-waiting[len(waiting)-1]; err == nil {
		t.Error("it was sent")
	}
}
