//go:build linux

package pack_test

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/acceptlog"
	"github.com/gopherpack/gopherpack/pack"
)

// TestEverybodyIsToldToStop sends TERM to all processes of a pack, as systemd does by default, under new connections. A
// worker cannot know whether the others were told, so the master decides, and no connection is lost that was accepted.
func TestEverybodyIsToldToStop(t *testing.T) {
	t.Parallel()
	orders := map[string]func(p *running){
		"all at once": func(p *running) { tell(append(p.Workers(), p.PID())...) },
		"master first": func(p *running) {
			workers := p.Workers()
			tell(p.PID())
			tell(workers...)
		},
		"workers first": func(p *running) {
			tell(p.Workers()...)
			time.Sleep(20 * time.Millisecond) // some of them have been replaced meanwhile
			tell(append(p.Workers(), p.PID())...)
		},
		"workers, then the master": func(p *running) {
			tell(p.Workers()...)
			p.Logged(1, "replacing worker")
			tell(p.PID())
		},
	}
	for name, asUser := range users(t) {
		for order, stop := range orders {
			t.Run(order+", "+name, func(t *testing.T) {
				t.Parallel()
				for range test.Times(3, 20) {
					p, accepts := startWithLog(t, asUser, "-workers=3")
					u := apply(t, load(p, 16, 0))
					u.until(&u.answered, 200)
					stop(p)
					if status := p.Wait(inTime); status != 0 {
						t.Errorf("exit status %d", status)
					}
					r := u.finish()
					if lost := lostAccepted(t, r, accepts); len(lost) > 0 {
						t.Errorf("%v; accepted and lost: %v", r, lost[:min(3, len(lost))])
					}
					p.Logged(1, "stopped")
					for _, r := range p.Records() {
						// One that is just starting has no handler for the signal yet, and ends by it.
						if r.Msg() == "worker failed" && !strings.HasPrefix(fmt.Sprint(r["error"]), "signal: terminated") {
							t.Errorf("%v", r)
						}
					}
					// Without CAP_NET_ADMIN new connections cannot be kept out: the last ones are reset.
					if refused := r.Failures["connect: connection refused"]; name == "root" && r.Failed() != refused {
						t.Errorf("%v; want no failure but refused connections", r)
					}
				}
			})
		}
	}
}

// TestOneWorkerIsToldToStop sends TERM to one worker after the other under new connections. Each is replaced, and
// nobody notices. That is no failure.
func TestOneWorkerIsToldToStop(t *testing.T) {
	t.Parallel()
	for name, asUser := range users(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, accepts := startWithLog(t, asUser, "-workers=2")
			u := apply(t, load(p, 16, 0))
			u.until(&u.answered, 200)
			for i := range test.Times(3, 20) {
				pids := p.Workers()
				tell(pids[i%len(pids)])
				p.Logged(i+1, "worker ready")
			}
			r := u.finish()
			if lost := lostAccepted(t, r, accepts); r.Failed() > 0 {
				t.Errorf("%v; of them accepted: %d", r, len(lost))
			}
			if failed := p.Count("worker failed"); failed > 0 {
				t.Errorf("%d workers failed", failed)
			}
			t.Logf("%v, the slowest in %v", r, r.Longest)
			p.Stop()
		})
	}
}

func init() { programs["tidy"] = tidyProgram }

// tidyProgram waits in a worker, when Run has returned, until somebody has written to a pipe. Then it makes a file.
func tidyProgram() error {
	c, address := configFlags()
	pipe := flag.String("accepts", "", "")
	flag.Parse()
	if err := serve(c, *address, &http.Server{Handler: handler()}); err != nil || pack.IsMaster() {
		return err
	}
	if _, err := os.ReadFile(*pipe); err != nil {
		return err
	}
	return os.WriteFile(*pipe+".closed", nil, 0o600)
}

// TestToldAtItsEnd sends signals to a worker whose Run has returned: they do not keep it from what its program does
// then.
func TestToldAtItsEnd(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			pipe := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			p := start(t, "tidy", nil, "-workers=1", "-accepts="+pipe)
			p.Addresses()
			worker := p.Workers()[0]
			p.Signal(syscall.SIGTERM)
			var w *os.File
			p.Until("Run to return", inTime, func() (reads bool) {
				f, err := os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0)
				w = f
				return err == nil
			})
			syscall.Kill(worker, sig)
			w.Close()
			status := p.Wait(inTime)
			if _, err := os.Stat(pipe + ".closed"); err != nil || status != 0 || p.Count("worker stopped") > 0 {
				t.Errorf("exit status %d, %v", status, err)
			}
		})
	}
}

// users are as whom a program is to be tried.
func users(t *testing.T) map[string]func(*exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		return map[string]func(*exec.Cmd){"not root": func(*exec.Cmd) {}}
	}
	return map[string]func(*exec.Cmd){"root": func(*exec.Cmd) {}, "nobody": asNobody(t)}
}

// startWithLog starts a pack that logs what its workers accept.
func startWithLog(t *testing.T, change func(*exec.Cmd), args ...string) (p *running, accepts string) {
	t.Helper()
	accepts = dirForAll(t) + "/accepts"
	if err := errors.Join(os.WriteFile(accepts, nil, 0o600), os.Chmod(accepts, 0o666)); err != nil {
		t.Fatal(err)
	}
	p = start(t, "http", change, append(args, "-accepts="+accepts)...)
	p.Addresses()
	return p, accepts
}

// tell sends TERM to processes.
func tell(pids ...int) {
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGTERM)
	}
}

// lostAccepted returns the failures of connections that a worker had accepted.
func lostAccepted(t *testing.T, r *strictclient.Result, accepts string) (lost []strictclient.Failure) {
	t.Helper()
	log, err := acceptlog.Read(accepts)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Samples {
		if len(log.By(f)) > 0 {
			lost = append(lost, f)
		}
	}
	return lost
}
