//go:build linux

package pack_test

import (
	"context"
	"flag"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/upgrade"
)

func init() { programs["configured"] = configuredProgram }

// configuredProgram answers with the file that it read when it was started. After an upgrade its OnStart panics when
// another file is there, if its executable says so.
func configuredProgram() error {
	c, address := configFlags()
	config := flag.String("config", "", "")
	flag.Parse()
	text, err := os.ReadFile(*config)
	if err != nil {
		return err
	}
	if _, how := ownVersion(); strings.Contains(how, "panics") && upgrade.Inherited() != nil {
		c.OnStart = func(ctx context.Context) error {
			c.Logger.Info("OnStart begins")
			for ctx.Err() == nil {
				if _, err := os.Stat(*config + ".panic"); err == nil {
					panic("cannot start the scheduler")
				}
				time.Sleep(10 * time.Millisecond)
			}
			return ctx.Err()
		}
	}
	version, _ := ownVersion()
	answer := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, string(text)+" "+version) }
	return serve(c, *address, &http.Server{Handler: http.HandlerFunc(answer)})
}

// TestReloadIsAskedForDuringReload changes the configuration, and sends HUP, while workers with the one before are
// about to take over. In the end the last one is served.
func TestReloadIsAskedForDuringReload(t *testing.T) {
	t.Parallel()
	config := t.TempDir() + "/config"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	p := start(t, "configured", nil, "-workers=2", "-config="+config, "-minready=1500ms")
	p.Addresses()
	write("two")
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloading")
	p.Until("a new worker that has read it", inTime, func() bool {
		return load(p, 4, 5).Run(t.Context()).Bodies["two"] > 0
	})
	write("three")
	p.Signal(syscall.SIGHUP)
	p.Signal(syscall.SIGHUP)
	p.Logged(2, "reloaded")
	p.HasWorkers(2)
	if r := load(p, 4, 5).Run(t.Context()); r.Bodies["three"] != 20 {
		t.Errorf("%v: %v", r, r.Bodies)
	}
	p.Stop()
}

// TestOnStartPanicsAfterUpgrade has the hook panic in a program that has just taken over. The one before goes on. Until
// then workers of both that crash are replaced.
func TestOnStartPanicsAfterUpgrade(t *testing.T) {
	t.Parallel()
	config := t.TempDir() + "/config"
	if err := os.WriteFile(config, []byte("version"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, path := startDeployed(t, "configured", nil, "-workers=2", "-config="+config)
	u := apply(t, load(p, 4, 0))
	deploy(t, path, "2", "panics")
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "OnStart begins")
	for _, pid := range p.Workers() {
		syscall.Kill(pid, syscall.SIGKILL)
		p.Until("a worker in its place", program.Patience, func() bool {
			all := p.Identities()
			_, there := all[pid]
			return len(all) == 4 && !there
		})
	}
	if err := os.WriteFile(config+".panic", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	failed := p.Logged(1, "upgrade failed, the old workers go on")
	if text, _ := failed["error"].(string); !strings.Contains(text, "OnStart: panic: cannot start the scheduler") {
		t.Errorf("%v", failed)
	}
	p.HasWorkers(2)
	if r := load(p, 4, 5).Run(t.Context()); r.Bodies["version 1"] != 20 {
		t.Errorf("%v: %v", r, r.Bodies)
	}
	if r := u.finish(); r.Requests == 0 {
		t.Errorf("%v", r)
	}
	deploy(t, path, "3")
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	p.HasWorkers(2)
	p.Stop()
}
