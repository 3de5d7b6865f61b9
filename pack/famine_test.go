//go:build linux

package pack_test

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
)

// TestFamine reloads a pack whose processes have hardly any descriptors left, under more connections than it can have.
// What is lost then is lost, but afterwards everybody must be served as ever.
func TestFamine(t *testing.T) {
	t.Parallel()
	for name, change := range users(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "http", func(c *exec.Cmd) {
				change(c)
				inShell(c, "ulimit -n 70") // both limits
			}, "-workers=2", "-shutdown=3s", "-generations=20")
			idle := loadOn("tcp", p.Address(), 70, 0)
			idle.KeepAlive, idle.Pause, idle.Timeout = true, time.Second, 5*time.Second
			busy := idle
			busy.Clients, busy.Path, busy.Pause = 200, "/burn", 50*time.Millisecond
			idling := apply(t, idle)
			idling.until(&idling.answered, 70)
			working := apply(t, busy)
			for i := range test.Times(4, 10) {
				working.until(&working.answered, working.answered.Load()+20)
				p.Signal(syscall.SIGHUP)
				p.Logged(i+1, "reloaded", "reload failed, the old workers go on")
			}
			results := []*strictclient.Result{idling.finish(), working.finish()}
			t.Logf("idle: %v; busy: %v; %d reloads", results[0], results[1], p.Count("reloaded"))
			p.HasWorkers(2)
			const conns = 100
			slow := 0
			for i := range conns {
				begun := time.Now()
				if !answersWithin(p.Address(), 10*time.Second) {
					t.Errorf("new connection %d is not answered", i)
				}
				if time.Since(begun) > 800*time.Millisecond {
					slow++ // the machine may be busy
				}
			}
			t.Logf("of %d connections afterwards %d took over 0.8 s", conns, slow)
			p.HasWorkers(2)
			p.Stop()
		})
	}
}
