//go:build linux

package pack_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// TestUpgradeLosesNothing upgrades many times under several kinds of load at once.
func TestUpgradeLosesNothing(t *testing.T) {
	p := start(t, "http", nil, "-drain=1s", "-generations=20")
	address := p.address()
	const clients = 6
	base := strictclient.Load{Network: "tcp", Address: address, Clients: clients}
	loads := map[string]*underLoad{}
	for name, change := range map[string]func(*strictclient.Load){
		"new connections":      func(l *strictclient.Load) {},
		"kept alive":           func(l *strictclient.Load) { l.KeepAlive = true },
		"kept alive, pausing":  func(l *strictclient.Load) { l.KeepAlive, l.Pause = true, 20*time.Millisecond },
		"kept alive, posting":  func(l *strictclient.Load) { l.KeepAlive, l.Body = true, strings.Repeat("x", 10000) },
		"two-second responses": func(l *strictclient.Load) { l.Path = "/slow" },
	} {
		l := base
		change(&l)
		loads[name] = apply(t, l)
	}
	for _, u := range loads {
		u.until(&u.sent, clients)
	}
	const upgrades = 10
	for i := range upgrades {
		p.signal(syscall.SIGUSR2)
		p.logged(i+1, "upgraded")
	}
	for name, u := range loads {
		r := u.finish()
		t.Logf("%s: %v", name, r)
		if r.Failed() != 0 || r.Requests == 0 {
			t.Errorf("%s: %v, %v", name, r, r.Samples[:min(3, len(r.Samples))])
		}
		if strings.HasPrefix(name, "kept alive") && r.Conns != clients {
			t.Errorf("%s: %d clients opened %d connections", name, clients, r.Conns)
		}
	}
	p.logged(upgrades, "generation has drained")
	p.stop()
	if n := p.count("killing worker") + p.count("worker failed"); n != 0 {
		t.Errorf("%d workers were killed or failed", n)
	}
}
