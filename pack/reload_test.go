//go:build linux

package pack_test

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/pack"
)

// TestReloadLosesNothing reloads many times under several kinds of load at once.
func TestReloadLosesNothing(t *testing.T) {
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
	const reloads = 10
	master := p.cmd.Process.Pid
	for i := range reloads {
		p.signal(syscall.SIGHUP)
		p.logged(i+1, "reloaded")
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
	p.logged(reloads, "generation has drained")
	if n := len(p.workers()); n != len(p.processes())-1 || p.cmd.Process.Pid != master {
		t.Errorf("%d workers", n)
	}
	p.stop()
	if n := p.count("killing worker") + p.count("worker failed"); n != 0 {
		t.Errorf("%d workers were killed or failed", n)
	}
}

// reloads reloads a pack many times, each time when the load has made some progress.
func (p *program) reloads(n int, u *underLoad) {
	p.t.Helper()
	p.changes(n, u, syscall.SIGHUP, "reloaded")
}

// changes sends a signal many times, each time when the load has made some progress, and waits for what it leads to.
func (p *program) changes(n int, u *underLoad, s os.Signal, msg string) {
	p.t.Helper()
	for i := range n {
		u.until(&u.answered, u.answered.Load()+10)
		p.signal(s)
		p.logged(i+1, msg)
	}
}

// TestReloadTLS has clients that connect anew, and that keep connections, which cannot be handed over.
func TestReloadTLS(t *testing.T) {
	t.Parallel()
	for _, keepAlive := range []bool{false, true} {
		p := start(t, "https", nil, "-drain=2s", "-generations=20")
		l := load(p, 6, 0)
		l.TLS, l.KeepAlive, l.Pause = &tls.Config{InsecureSkipVerify: true}, keepAlive, 5*time.Millisecond
		u := apply(t, l)
		p.reloads(8, u)
		if r := u.finish(); r.Failed() != 0 {
			t.Errorf("keep-alive %v: %v", keepAlive, r)
		}
		p.stop()
	}
}

// TestReloadHTTP2 has clients with many streams on few connections.
func TestReloadHTTP2(t *testing.T) {
	t.Parallel()
	p := start(t, "https", nil, "-drain=2s", "-generations=20")
	var u underLoad
	u.t = t
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		for range 4 {
			clients.Go(func() {
				for ctx.Err() == nil {
					// A POST: the transport repeats it only if the server says that it was not looked at.
					resp, err := (&http.Client{Transport: tr}).Post("https://"+p.address()+"/proto", "text/plain", strings.NewReader("x"))
					if err != nil {
						t.Error(err)
						return
					}
					body, err := io.ReadAll(resp.Body)
					if string(body) != "HTTP/2.0" || err != nil {
						t.Errorf("%q, %v", body, err)
					}
					resp.Body.Close()
					u.answered.Add(1)
				}
			})
		}
	}
	p.reloads(8, &u)
	cancel()
	clients.Wait()
	t.Logf("%d answered", u.answered.Load())
	p.stop()
}

// TestSessionsAreResumed connects again and again, to both workers, and across a reload.
func TestSessionsAreResumed(t *testing.T) {
	t.Parallel()
	p := start(t, "https", nil, "-workers=4")
	config := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	resumed := 0
	const conns = 60
	for i := range conns {
		if i == conns/2 {
			p.signal(syscall.SIGHUP)
			p.logged(1, "generation has drained")
		}
		c, err := tls.Dial("tcp", p.address(), config)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		if c.ConnectionState().DidResume {
			resumed++
		}
		c.Close()
	}
	if resumed != conns-1 {
		t.Errorf("%d of %d sessions were resumed, want all but the first", resumed, conns)
	}
	p.stop()
}

// TestReloadUnixSocket has clients that keep connections and clients that do not.
func TestReloadUnixSocket(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/socket"
	p := start(t, "http", nil, "-address=unix "+path, "-generations=20")
	p.addresses()
	kept := loadOn("unix", path, 4, 0)
	kept.KeepAlive = true
	keeping, connecting := apply(t, kept), apply(t, loadOn("unix", path, 4, 0))
	p.reloads(8, connecting)
	if r := keeping.finish(); r.Failed() != 0 || r.Conns != 4 {
		t.Errorf("kept alive: %v", r)
	}
	if r := connecting.finish(); r.Failed() != 0 {
		t.Errorf("new connections: %v", r)
	}
	p.stop()
}

// TestReloadTCP has clients that connect, have something echoed, and go.
func TestReloadTCP(t *testing.T) {
	t.Parallel()
	p := start(t, "tcp", nil, "-generations=20")
	var u underLoad
	u.t = t
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 8 {
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := echoOnce(p.address(), fmt.Sprintln("echo", i, n)); err != nil {
					t.Error(err)
					return
				}
				u.answered.Add(1)
			}
		})
	}
	p.reloads(8, &u)
	cancel()
	clients.Wait()
	t.Logf("%d answered", u.answered.Load())
	p.stop()
}

func echoOnce(address, line string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != line {
		return fmt.Errorf("%q, %w; want %q", got, err, line)
	}
	return nil
}

// TestReloadChangesEveryWorker compares the processes before and after.
func TestReloadChangesEveryWorker(t *testing.T) {
	p := start(t, "http", nil)
	before, _ := answers(t, load(p, 16, 20).Run(t.Context()))
	p.signal(syscall.SIGHUP)
	p.logged(1, "generation has drained")
	after, _ := answers(t, load(p, 16, 20).Run(t.Context()))
	if len(after) != len(before) {
		t.Errorf("%d workers answer, %d before", len(after), len(before))
	}
	for id, pid := range before {
		if after[id] == pid {
			t.Errorf("worker %d is the old one", id)
		}
		if got := masks(t, after[id]); len(got) != 1 {
			t.Errorf("worker %d has masks %v", id, got)
		}
	}
	if n := len(p.workers()); n != len(after) {
		t.Errorf("%d processes for %d workers", n, len(after))
	}
	p.stop()
}

// TestReloadRollsBack has new workers fail in several ways. The old ones must not notice.
func TestReloadRollsBack(t *testing.T) {
	for how, want := range map[string]string{
		"panic":            "a worker failed before it was ready: exit status 2",
		"hang":             "a worker failed before it was ready: killed: not ready within 300ms",
		"exit in worker 1": "a worker failed before it was ready: exit status 4",
		"OnWorkerStart":    "OnWorkerStart: no database",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			sick := t.TempDir() + "/sick"
			p := start(t, "sick", nil, "-sick="+sick, "-how="+how, "-workers=2", "-ready=300ms")
			u := apply(t, load(p, 4, 0))
			u.until(&u.answered, 50)
			if err := os.WriteFile(sick, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				p.signal(syscall.SIGHUP)
				if failed := p.logged(i+1, "reload failed, the old workers go on"); failed["error"] != want {
					t.Errorf("%v; want %q", failed, want)
				}
			}
			if err := os.Remove(sick); err != nil {
				t.Fatal(err)
			}
			p.signal(syscall.SIGHUP)
			p.logged(1, "reloaded")
			if r := u.finish(); r.Failed() != 0 {
				t.Errorf("%v", r)
			}
			p.logged(1, "generation has drained")
			if n := len(p.workers()); n != 2 {
				t.Errorf("%d workers", n)
			}
			p.stop()
		})
	}
}

// TestStopDuringReload stops a pack whose new workers take long to start.
func TestStopDuringReload(t *testing.T) {
	sick := t.TempDir() + "/sick"
	p := start(t, "sick", nil, "-sick="+sick, "-how=hang", "-ready=1h")
	p.address()
	if err := os.WriteFile(sick, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.logged(1, "reloading")
	l := load(p, 4, 5)
	if r := l.Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.signal(syscall.SIGTERM)
	if status := p.wait(10 * time.Second); status != 0 { // ShutdownTimeout is 30 s
		t.Errorf("exit status %d", status)
	}
}

// TestGenerationsAreBounded reloads while requests never end.
func TestGenerationsAreBounded(t *testing.T) {
	p := start(t, "http", nil, "-shutdown=1h", "-workers=1", "-generations=3")
	var hanging []*underLoad
	for i := range 5 {
		l := load(p, 1, 1)
		l.Path = "/hang"
		u := apply(t, l)
		u.until(&u.sent, 1)
		hanging = append(hanging, u)
		p.signal(syscall.SIGHUP)
		p.logged(i+1, "reloaded")
		if n := len(p.workers()); n > 4 { // one may not be quite dead
			t.Errorf("after %d reloads there are %d workers", i+1, n)
		}
	}
	p.logged(1, "too many generations, killing the oldest") // a request may be accepted by the next generation only
	p.signal(syscall.SIGTERM)
	p.logged(1, "stopping")
	p.signal(syscall.SIGTERM)
	p.wait(10 * time.Second)
	for _, u := range hanging {
		u.finish()
	}
}

// TestReloadRunsTheSameExecutable reloads after the executable was removed.
func TestReloadRunsTheSameExecutable(t *testing.T) {
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/program"
	if err := os.WriteFile(path, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	p := start(t, "http", func(c *exec.Cmd) { c.Path = path })
	p.address()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.logged(1, "reloaded")
	if r := load(p, 4, 5).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.stop()
}

// TestReloadCall reloads by the method, twice at once.
func TestReloadCall(t *testing.T) {
	p := start(t, "reloader", nil)
	p.address()
	p.signal(syscall.SIGUSR1)
	p.logged(1, "Reload returned nil")
	if refused := p.logged(1, "Reload was refused"); refused["error"] != "pack: reload: a reload or an upgrade is in progress" {
		t.Errorf("%v", refused)
	}
	p.stop()
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
			select {}
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

// TestStopRightAfterReload stops a pack while connections are on their way from the old workers to the new.
func TestStopRightAfterReload(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("keeping new connections out needs CAP_NET_ADMIN")
	}
	for range 10 {
		p := start(t, "http", nil, "-workers=2")
		u := apply(t, load(p, 16, 0))
		u.until(&u.answered, 100)
		p.signal(syscall.SIGHUP)
		p.logged(1, "reloaded")
		p.stop()
		const late = "connect: connection refused"
		if r := u.finish(); r.Failed() != r.Failures[late] {
			t.Errorf("%v; want no failure but %q", r, late)
		}
		if n := p.count("a connection was lost that a worker handed over: no worker could take it"); n > 0 {
			t.Errorf("%d connections were lost", n)
		}
	}
}
