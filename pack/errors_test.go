//go:build linux

package pack_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/pack"
)

// TestFailures starts packs that cannot start. Each ends with one clear error and leaves nothing behind.
func TestFailures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // when the parallel subtests have ended
	dir := t.TempDir()
	alive, err := net.Listen("unix", dir+"/alive")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alive.Close() })
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, program string
		args, env     []string
		want          string // what the error says
	}{
		{name: "port in use", program: "http", args: []string{"-address=tcp " + taken.Addr().String()},
			want: "pack: listen tcp " + taken.Addr().String() + ": bind: address already in use (is another instance running?"},
		{name: "port in use, asked by a worker", program: "lazy", args: []string{"-address=tcp " + taken.Addr().String()},
			want: "pack: listen tcp " + taken.Addr().String() + ": bind: address already in use (is another instance running?"},
		{name: "no such host", program: "http", args: []string{"-address=tcp 127.0.0.1.2:80"}, want: "pack: listen tcp: lookup 127.0.0.1.2"},
		{name: "no port", program: "http", args: []string{"-address=tcp localhost"}, want: "missing port in address"},
		{name: "no such address", program: "http", args: []string{"-address=tcp 192.0.2.1:0"}, want: "no interface of this machine has that address"},
		{name: "unknown network", program: "http", args: []string{"-address=sctp :80"}, want: "pack: listen sctp :80: want the network to be tcp, tcp4, tcp6 or unix"},
		{name: "unknown network, asked by a worker", program: "lazy", args: []string{"-address=udp :80"}, want: "pack: listen udp :80: want the network"},
		{name: "Unix socket in use", program: "http", args: []string{"-address=unix " + dir + "/alive"},
			want: "pack: listen unix " + dir + "/alive: a process is listening there: address already in use"},
		{name: "Unix socket is a file", program: "http", args: []string{"-address=unix " + dir + "/file"}, want: "there is a file that is not a socket"},
		{name: "Unix socket in no directory", program: "http", args: []string{"-address=unix " + dir + "/none/x"}, want: "no such file or directory"},
		{name: "handled twice", program: "broken", args: []string{"-how=twice"}, want: "pack: tcp localhost:1 is handled twice"},

		{name: "negative workers", program: "http", args: []string{"-workers=-1"}, want: "pack: the number of workers is negative: -1"},
		{name: "too many workers", program: "http", args: []string{"-workers=100000"}, want: "pack: 100000 workers: at most 4096"},
		{name: "CPUs not allowed", program: "http", args: []string{"-cpus=0,1000"}, want: `pack: CPUs "0,1000": this process may not use "1000"`},
		{name: "negative timeout", program: "http", args: []string{"-ready=-1s"}, want: "pack: ReadyTimeout is negative: -1s"},
		{name: "drain longer than shutdown", program: "http", args: []string{"-drain=2s", "-shutdown=1s"}, want: "DrainDelay 2s leaves nothing of ShutdownTimeout 1s"},
		{name: "too many files", program: "http", args: []string{"-files=99999999999"}, want: "raise nofile to 99999999999: the hard limit is"},
		{name: "no such user", program: "http", args: []string{"-user=nobody-at-all"}, want: `pack: user "nobody-at-all": user: unknown user`},
		{name: "environment: workers", program: "http", env: []string{"GOPHERPACK_WORKERS=some"}, want: `pack: environment variable GOPHERPACK_WORKERS="some": want a number`},
		{name: "environment: no workers", program: "http", env: []string{"GOPHERPACK_WORKERS=0"}, want: "at least 1"},
		{name: "environment: empty CPU set", program: "http", env: []string{"GOPHERPACK_CPUS="}, want: `GOPHERPACK_CPUS="": want a list of CPUs`},
		{name: "environment: CPUs", program: "http", env: []string{"GOPHERPACK_CPUS=a-b"}, want: "want a list of CPUs, such as 0-3,8"},
		{name: "environment: placement", program: "http", env: []string{"GOPHERPACK_PLACEMENT=moon"}, want: "want cpu, core, cache or node"},
		{name: "environment: inline", program: "http", env: []string{"GOPHERPACK_INLINE=perhaps"}, want: "want 0 or 1"},

		{name: "worker panics", program: "broken", args: []string{"-how=panic"}, want: "pack: the first worker failed before it was ready: exit status 2"},
		{name: "worker exits", program: "broken", args: []string{"-how=exit"}, want: "before it was ready: ended by itself, with exit status 0"},
		{name: "worker hangs", program: "broken", args: []string{"-how=hang", "-ready=300ms"}, want: "killed: not ready within 300ms"},
		{name: "nothing to serve", program: "broken", args: []string{"-how=nothing"}, want: "pack: there is nothing to serve: call Handle before Run"},
		{name: "nil server", program: "broken", args: []string{"-how=nil"}, want: "the server for tcp localhost:0 is nil"},
		{name: "Serve fails", program: "broken", args: []string{"-how=serve fails"}, want: "pack: the server for tcp localhost:0 stopped serving: no more tape"},
		{name: "never accepts", program: "broken", args: []string{"-how=never accepts", "-ready=300ms"}, want: "not ready within 300ms"},
		{name: "no certificate", program: "https", args: []string{"-nocert"}, want: "its TLS configuration has no certificate"},
		{name: "OnStart", program: "hooks", args: []string{"-fail=OnStart"}, want: "pack: OnStart: OnStart went wrong"},
		{name: "OnWorkerStart", program: "hooks", args: []string{"-fail=OnWorkerStart"}, want: "pack: OnWorkerStart: OnWorkerStart went wrong"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.program, func(c *exec.Cmd) { c.Env = append(c.Env, tt.env...) }, tt.args...)
			if status := p.wait(20 * time.Second); status != 1 {
				t.Errorf("exit status %d, want 1", status)
			}
			if !p.said(tt.want) {
				t.Errorf("no error says %q", tt.want)
			}
			p.noneLeft()
			said := 0
			for _, line := range p.other {
				if strings.HasPrefix(line, "pack: ") {
					said++
				}
			}
			if said != 1 {
				t.Errorf("the error stands there %d times", said)
			}
		})
	}
}

func TestNoPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming nobody takes root")
	}
	if text, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); strings.TrimSpace(string(text)) != "1024" {
		t.Skipf("ports from %s on are free for all", text)
	}
	p := start(t, "http", asNobody(t), "-address=tcp :80")
	if status := p.wait(10 * time.Second); status != 1 {
		t.Errorf("exit status %d", status)
	}
	if !p.said("pack: listen tcp :80: bind: permission denied (ports below") {
		t.Error("no clear error")
	}
}

// asNobody runs a copy of the test binary as uid 65534, which cannot reach go test's own.
func asNobody(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pack")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/program", exe, 0o755)); err != nil {
		t.Fatal(err)
	}
	return func(c *exec.Cmd) {
		c.Path, c.Dir = dir+"/program", dir
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

// TestUnprivileged runs a pack without any capability.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests are unprivileged already")
	}
	p := start(t, "http", asNobody(t))
	r := load(p, 16, 20).Run(t.Context())
	if pids, _ := answers(t, r); len(pids) != len(p.workers()) || r.Failed() != 0 {
		t.Errorf("%v by %v", r, pids)
	}
	p.stop()
}

func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("workers of another user take root")
	}
	asOther := asNobody(t)
	for user, want := range map[string]string{
		"nobody":      "uid=65534 gid=65534",
		"65534":       "uid=65534 gid=65534",
		"nobody:root": "uid=65534 gid=0 groups=[]",
		"4711:4712":   "uid=4711 gid=4712 groups=[]",
	} {
		p := start(t, "http", func(c *exec.Cmd) { asOther(c); c.SysProcAttr = nil }, "-user="+user)
		l := load(p, 4, 5)
		l.Path = "/user"
		r := l.Run(t.Context())
		for body := range r.Bodies {
			if !strings.HasPrefix(body, want) {
				t.Errorf("user %s: %s, want %s", user, body, want)
			}
		}
		if r.Failed() != 0 {
			t.Errorf("user %s: %v", user, r)
		}
		p.stop()
	}
}

func TestUnixSocket(t *testing.T) {
	path := t.TempDir() + "/socket"
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close() // the file is still there
	p := start(t, "http", nil, "-address=unix "+path)
	p.addresses()
	l := loadOn("unix", path, 8, 50)
	r := l.Run(t.Context())
	if pids, _ := answers(t, r); r.Failed() != 0 || len(pids) != len(p.workers()) {
		t.Errorf("%v by workers %v", r, pids)
	}
	syscall.Kill(p.workers()[0], syscall.SIGKILL)
	p.logged(1, "worker ready")
	if r := l.Run(t.Context()); r.Failed() != 0 {
		t.Errorf("after a worker was replaced: %v", r)
	}
	p.stop()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestManyEndpoints(t *testing.T) {
	path := t.TempDir() + "/socket"
	p := start(t, "many", nil, "-address="+path)
	addresses := p.addresses()
	if len(addresses) != 4 {
		t.Fatalf("listening on %q, want four", addresses)
	}
	got := map[string]int{}
	for _, a := range addresses {
		network, address, _ := strings.Cut(a, " ")
		r := loadOn(network, address, 4, 5).Run(t.Context())
		if r.Failed() != 0 {
			t.Errorf("%s: %v", a, r)
		}
		for body, n := range r.Bodies {
			got[body] += n
		}
	}
	if want := "map[first:20 same:40 second:20]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	p.stop()
}

func TestHooks(t *testing.T) {
	p := start(t, "hooks", nil, "-workers=3")
	p.addresses()
	p.stop()
	for name, want := range map[string]int{"OnStart": 1, "OnWorkerStart": 3, "OnShutdown": 3} {
		if n := p.count("hook " + name); n != want {
			t.Errorf("%s was called %d times, want %d", name, n, want)
		}
	}
	on := p.logged(1, "hook OnStart")
	if on["isMaster"] != true || on["isWorker"] != false {
		t.Errorf("OnStart: %v, want it in the master", on)
	}
	if w := p.logged(1, "hook OnWorkerStart"); w["isMaster"] != false || w["isWorker"] != true {
		t.Errorf("OnWorkerStart: %v, want it in a worker", w)
	}
}

func TestLazyServers(t *testing.T) {
	p := start(t, "lazy", nil)
	r := load(p, 8, 20).Run(t.Context())
	if pids, _ := answers(t, r); r.Failed() != 0 || len(pids) != len(p.workers()) {
		t.Errorf("%v by %v", r, pids)
	}
	p.stop()
}

// TestInline runs the pack as one process, by the environment and by the field.
func TestInline(t *testing.T) {
	for _, args := range [][]string{nil, {"-inline"}} {
		p := start(t, "lazy", func(c *exec.Cmd) {
			if args == nil {
				c.Env = append(c.Env, "GOPHERPACK_INLINE=1")
			}
		}, args...)
		if args != nil { // IsMaster cannot know of the field
			p.cmd.Process.Kill()
			p.wait(5 * time.Second)
			p = start(t, "http", nil, args...)
		}
		up := p.logged(1, "pack serves in line, in one process")
		network, address, _ := strings.Cut(up["listening"].([]any)[0].(string), " ")
		slow := loadOn(network, address, 5, 1)
		slow.Path = "/slow"
		u := apply(t, slow)
		u.until(&u.sent, 5)
		if n := len(p.workers()); n != 0 {
			t.Errorf("it has %d workers", n)
		}
		p.stop()
		if r := u.finish(); r.Failed() != 0 {
			t.Errorf("%v", r)
		}
	}
}

// TestRunHere runs a pack in line within this process, as a user's own test would.
func TestRunHere(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := pack.New(pack.Config{Inline: true})
	path := filepath.Join(t.TempDir(), "socket")
	p.Handle("unix", path, &http.Server{Handler: handler()})
	result := make(chan error, 1)
	go func() { result <- p.Run(ctx) }()
	for range 1000 {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if r := loadOn("unix", path, 2, 5).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	cancel()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "called before") {
		t.Errorf("a second Run: %v", err)
	}
	if !pack.IsMaster() {
		t.Error("this process is not the master")
	}
	if _, ok := pack.WorkerID(); ok {
		t.Error("this process is a worker")
	}
	if _, ok := pack.WorkerCPU(); ok {
		t.Error("this process is pinned")
	}
}

// TestStrayIdentity starts a program whose environment claims that it is a worker, but that no master started.
func TestStrayIdentity(t *testing.T) {
	p := start(t, "http", func(c *exec.Cmd) {
		c.Env = append(c.Env, "GOPHERPACK_IDENTITY=id=0 generation=1 cpus=0", "PROCGROUP_LIFELINE=3,1")
	})
	if r := load(p, 4, 5).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.stop()
}

func TestMaskOfOneCPUAndMoreWorkers(t *testing.T) {
	allowed(t, 1)
	first, _ := allowed(t, 1).First()
	p := start(t, "http", nil, "-workers=3", fmt.Sprintf("-cpus=%s", affinity.Of(first)))
	if n := len(p.workers()); p.address() != "" && len(p.workers()) != 3 {
		t.Errorf("%d workers", n)
	}
	for _, pid := range p.workers() {
		if got := masks(t, pid); len(got) != 1 || !got[fmt.Sprint(first)] {
			t.Errorf("masks %v", got)
		}
	}
	p.stop()
}
