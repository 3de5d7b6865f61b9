//go:build linux

package pack_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
)

// TestChangesLoseNothing reloads and upgrades packs, a few times or often, under loads of clients that retry nothing.
// No request may fail, and whoever keeps a connection to a server without TLS must keep it through all changes.
func TestChangesLoseNothing(t *testing.T) {
	t.Parallel()
	const kept, fresh = true, false
	for _, tt := range []struct {
		name    string
		program string
		args    []string
		changes int // of either kind
		loads   map[string]strictclient.Load
	}{
		{
			name: "HTTP", program: "http", changes: 25,
			loads: map[string]strictclient.Load{
				"new connections":           {KeepAlive: fresh},
				"kept alive":                {KeepAlive: kept},
				"kept alive, pausing 20 ms": {KeepAlive: kept, Pause: 20 * time.Millisecond},
				"kept alive, pausing 2 s":   {KeepAlive: kept, Pause: 2 * time.Second},
				"kept alive, posting":       {KeepAlive: kept, Body: strings.Repeat("x", 10000)},
				"two-second responses":      {KeepAlive: fresh, Path: "/slow"},
			},
		}, {
			name: "Unix socket", program: "http", changes: 15,
			args: []string{"-address=unix " + t.TempDir() + "/socket"},
			loads: map[string]strictclient.Load{
				"new connections": {KeepAlive: fresh, Pause: time.Millisecond},
				"kept alive":      {KeepAlive: kept, Pause: time.Millisecond},
			},
		}, {
			name: "HTTPS", program: "https", changes: 15,
			loads: map[string]strictclient.Load{
				"new connections":         {KeepAlive: fresh, Pause: 5 * time.Millisecond},
				"kept alive":              {KeepAlive: kept},
				"kept alive, pausing 1 s": {KeepAlive: kept, Pause: time.Second}, // DrainDelay is 5 s
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.program, nil, append(tt.args, "-generations=100")...)
			network, address := p.Listening("pack is up")
			const clients = 4
			loads := map[string]*underLoad{}
			for name, l := range tt.loads {
				l.Network, l.Address, l.Clients = network, address, clients
				if tt.program == "https" {
					l.TLS = &tls.Config{InsecureSkipVerify: true}
				}
				if l.Pause == 0 {
					l.Pause = pause()
				}
				loads[name] = apply(t, l)
			}
			for _, u := range loads {
				u.until(&u.sent, clients)
			}
			changes := test.Times(2, tt.changes)
			p.changes(loads["new connections"], mixed(changes)...)
			for name, u := range loads {
				r := u.finish()
				t.Logf("%s: %v", name, r)
				if r.Failed() != 0 || r.Requests == 0 {
					t.Errorf("%s: %v, %v", name, r, r.Samples[:min(3, len(r.Samples))])
				}
				if tt.loads[name].KeepAlive && tt.program == "http" && r.Conns != clients {
					t.Errorf("%s: %d clients opened %d connections", name, clients, r.Conns)
				}
			}
			p.Logged(2*changes, "generation has drained")
			p.IsParent()
			p.Stop()
			if n := p.Count("killing worker") + p.Count("worker failed"); n != 0 {
				t.Errorf("%d workers were killed or failed", n)
			}
		})
	}
}

// TestChangesHTTP2 has clients with many streams on few connections.
func TestChangesHTTP2(t *testing.T) {
	t.Parallel()
	p := start(t, "https", nil, "-drain=2s", "-generations=100")
	u := &underLoad{t: t}
	clients := inLoops(12, func(n int) func(context.Context) error {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		t.Cleanup(tr.CloseIdleConnections)
		return func(ctx context.Context) error {
			var streams sync.WaitGroup
			errs := make(chan error, 4)
			for range cap(errs) {
				streams.Go(func() { errs <- postOnce(tr, "https://"+p.Address()+"/proto") })
			}
			streams.Wait()
			for range cap(errs) {
				if err := <-errs; err != nil {
					return err
				}
				u.answered.Add(1)
			}
			return nil
		}
	})
	p.changes(u, mixed(test.Times(2, 15))...)
	if err := clients(); err != nil {
		t.Error(err)
	}
	t.Logf("%d answered", u.answered.Load())
	p.Stop()
}

// postOnce sends a POST: the transport repeats it only if the server says that it was not looked at.
func postOnce(tr *http.Transport, url string) error {
	resp, err := (&http.Client{Transport: tr}).Post(url, "text/plain", strings.NewReader("x"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if string(body) != "HTTP/2.0" || err != nil {
		return fmt.Errorf("the answer is %q, %w", body, err)
	}
	return nil
}

// TestChangesTCP has clients that connect, have something echoed, and go.
func TestChangesTCP(t *testing.T) {
	t.Parallel()
	p := start(t, "tcp", nil, "-generations=100")
	u := &underLoad{t: t}
	clients := inLoops(8, func(n int) func(context.Context) error {
		return func(context.Context) error {
			defer u.answered.Add(1)
			return echoOnce(p.Address(), fmt.Sprintln("echo", n))
		}
	})
	p.changes(u, mixed(test.Times(2, 15))...)
	if err := clients(); err != nil {
		t.Error(err)
	}
	t.Logf("%d answered", u.answered.Load())
	p.Stop()
}
