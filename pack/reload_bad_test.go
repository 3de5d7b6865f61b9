//go:build linux

package pack_test

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/pack"
)

// TestReloadRollsBack has new workers fail in several ways. The old ones must not notice.
func TestReloadRollsBack(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]string{
		"panic": "a worker failed before it was ready: exit status 2, before it called Run, " +
			"panic: the new version is broken",
		"hang":             "a worker failed before it was ready: killed: not ready within 1s, before it called Run",
		"exit in worker 1": "a worker failed before it was ready: exit status 4, before it called Run",
		"OnWorkerStart":    "OnWorkerStart: no database",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			sick := t.TempDir() + "/sick"
			ready := "20s"
			if how == "hang" {
				ready = "1s"
			}
			p := start(t, "sick", nil, "-sick="+sick, "-how="+how, "-workers=2", "-ready="+ready)
			u := apply(t, load(p, 4, 0))
			u.until(&u.answered, 50)
			if err := os.WriteFile(sick, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				p.Signal(syscall.SIGHUP)
				if failed := p.Logged(i+1, "reload failed, the old workers go on"); failed["error"] != want {
					t.Errorf("%v; want %q", failed, want)
				}
			}
			if err := os.Remove(sick); err != nil {
				t.Fatal(err)
			}
			p.Signal(syscall.SIGHUP)
			p.Logged(1, "reloaded")
			loseNothing(t, u)
			p.Logged(1, "generation has drained")
			if n := len(p.Workers()); n != 2 {
				t.Errorf("%d workers", n)
			}
			p.Stop()
		})
	}
}

// TestStopDuringReload stops a pack whose new workers take long to start.
func TestStopDuringReload(t *testing.T) {
	t.Parallel()
	sick := t.TempDir() + "/sick"
	p := start(t, "sick", nil, "-sick="+sick, "-how=hang", "-ready=1h")
	p.Address()
	if err := os.WriteFile(sick, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloading")
	l := load(p, 4, 5)
	if r := l.Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.Signal(syscall.SIGTERM)
	if status := p.Wait(inTime); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestReloadCall reloads by the method, twice at once.
func TestReloadCall(t *testing.T) {
	t.Parallel()
	p := start(t, "reloader", nil)
	p.Address()
	p.Signal(syscall.SIGUSR1)
	p.Logged(1, "Reload returned nil")
	const want = "pack: reload: a reload or an upgrade is in progress"
	if refused := p.Logged(1, "Reload was refused"); refused["error"] != want {
		t.Errorf("%v; want %q", refused, want)
	}
	p.Stop()
	err := pack.New(pack.Config{}).Reload(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not run a pack") {
		t.Errorf("outside a running pack: %v", err)
	}
}

func init() {
	programs["sick"] = sickProgram
	programs["reloader"] = reloaderProgram
}

// reloaderProgram calls Reload when it gets USR1.
func reloaderProgram() error {
	c, address := configFlags()
	flag.Parse()
	var p *pack.Pack
	c.OnStart = func(ctx context.Context) error {
		arrived := make(chan os.Signal, 1)
		signal.Notify(arrived, syscall.SIGUSR1)
		go func() {
			<-arrived
			for range 2 {
				go func() {
					if err := p.Reload(ctx); err != nil {
						c.Logger.Info("Reload was refused", "error", err.Error())
					} else {
						c.Logger.Info("Reload returned nil")
					}
				}()
			}
		}()
		return nil
	}
	p = pack.New(*c)
	network, addr, _ := strings.Cut(*address, " ")
	p.Handle(network, addr, &http.Server{Handler: handler()})
	return p.Run(context.Background())
}

// sickProgram is a server whose workers fail while the file -sick exists.
func sickProgram() error {
	c, address := configFlags()
	sick := flag.String("sick", "", "")
	how := flag.String("how", "", "")
	flag.Parse()
	id, isWorker := pack.WorkerID()
	if _, err := os.Stat(*sick); err == nil && isWorker {
		switch *how {
		case "panic":
			panic("the new version is broken")
		case "hang":
			time.Sleep(time.Hour)
		case "exit in worker 1":
			if id == 1 {
				os.Exit(4)
			}
		case "OnWorkerStart":
			c.OnWorkerStart = func(context.Context) error { return errors.New("no database") }
		}
	}
	return serve(c, *address, &http.Server{Handler: handler()})
}
