//go:build linux

package pack_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/pack"
)

func TestHooks(t *testing.T) {
	t.Parallel()
	p := start(t, "hooks", nil, "-workers=3")
	p.Addresses()
	p.Stop()
	for name, want := range map[string]int{"OnStart": 1, "OnWorkerStart": 3, "OnShutdown": 3} {
		if n := p.Count("hook " + name); n != want {
			t.Errorf("%s was called %d times, want %d", name, n, want)
		}
	}
	on := p.Logged(1, "hook OnStart")
	if on["isMaster"] != true || on["isWorker"] != false {
		t.Errorf("OnStart: %v, want it in the master", on)
	}
	if w := p.Logged(1, "hook OnWorkerStart"); w["isMaster"] != false || w["isWorker"] != true {
		t.Errorf("OnWorkerStart: %v, want it in a worker", w)
	}
}

// TestServesDuringOnShutdown has OnShutdown take its time, as one does that waits for a load balancer to notice.
func TestServesDuringOnShutdown(t *testing.T) {
	t.Parallel()
	hold := t.TempDir() + "/hold"
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "hooks", nil, "-workers=2", "-hold="+hold)
	l := load(p, 4, 20)
	p.Signal(syscall.SIGTERM)
	p.Logged(2, "hook OnShutdown")
	if r := l.Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	if status := p.Wait(inTime); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/socket"
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close() // the file is still there
	p := start(t, "http", nil, "-address=unix "+path)
	p.Addresses()
	l := loadOn("unix", path, 8, 50)
	r := l.Run(t.Context())
	if pids, _ := answers(t, r); r.Failed() != 0 || len(pids) != len(p.Workers()) {
		t.Errorf("%v by workers %v", r, pids)
	}
	syscall.Kill(p.Workers()[0], syscall.SIGKILL)
	p.Logged(1, "worker ready")
	if r := l.Run(t.Context()); r.Failed() != 0 {
		t.Errorf("after a worker was replaced: %v", r)
	}
	p.Stop()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestUnixSocketFile looks at the permissions and the owner of a Unix socket's file, under a umask that takes some.
func TestUnixSocketFile(t *testing.T) {
	t.Parallel()
	for mode, args := range map[fs.FileMode][]string{
		0o600: nil,
		0o666: {"-unixmode=666"},
		0o660: {"-unixmode=660", "-unixowner=65534:65534"},
	} {
		if len(args) == 2 && os.Geteuid() != 0 {
			continue // only root gives files away
		}
		path := t.TempDir() + "/socket"
		p := start(t, "http", func(c *exec.Cmd) {
			inShell(c, "umask 027")
		}, append(args, "-address=unix "+path)...)
		p.Addresses()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%q: %v; want %v", args, info.Mode(), mode)
		}
		if owner := info.Sys().(*syscall.Stat_t); len(args) == 2 && (owner.Uid != 65534 || owner.Gid != 65534) {
			t.Errorf("%q: it is %d:%d's", args, owner.Uid, owner.Gid)
		}
		if r := loadOn("unix", path, 4, 5).Run(t.Context()); r.Failed() != 0 {
			t.Error(r)
		}
		p.Stop()
	}
}

// TestChildrenInheritNothing has a handler start a program, which must not have the descriptors of the pack.
func TestChildrenInheritNothing(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2")
	l := load(p, 4, 2)
	l.Path = "/descriptors"
	r := l.Run(t.Context())
	out, err := exec.Command("ls", "/proc/self/fd").CombinedOutput()
	// What this test has from whoever started it, and what ls opens.
	want := fmt.Sprint(strings.Fields(string(out)), err)
	for body := range r.Bodies {
		if body != want {
			t.Errorf("%s; want %s", body, want)
		}
	}
	if r.Failed() != 0 {
		t.Error(r)
	}
	p.Stop()
}

func TestManyEndpoints(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/socket"
	p := start(t, "many", nil, "-address="+path)
	addresses := p.Addresses()
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
	p.Stop()
}

// TestFiles starts a pack with a low soft limit of open files. The Go runtime raises it by itself, to one less than
// the hard one, and gives programs that a worker starts the former.
func TestFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ files, want string }{
		{"0", "299, programs 100"},
		{"200", "299, programs 100"},
		{"300", "300, programs 300"},
	} {
		p := start(t, "http", func(c *exec.Cmd) {
			inShell(c, "ulimit -Sn 100 && ulimit -Hn 300")
		}, "-files="+tt.files)
		l := load(p, 2, 5)
		l.Path = "/files"
		if r := l.Run(t.Context()); r.Bodies[tt.want] != 10 {
			t.Errorf("-files=%s: workers have limits %v, want %s", tt.files, r.Bodies, tt.want)
		}
		p.Stop()
	}
}

// TestProgramOfHandler has a handler start a program with what the pack was started with, and not what a worker has.
func TestProgramOfHandler(t *testing.T) {
	t.Parallel()
	cpus := allowed(t, 2)
	for _, tt := range []struct {
		env        []string
		args       []string
		variables  string
		cpus       affinity.Set
		afterwards syscall.Signal
	}{
		{[]string{"GOMAXPROCS=2", "GOMEMLIMIT=400MiB"}, nil, "2,400MiB", cpus, 0},
		{nil, []string{"-cpus=" + affinity.Of(first(cpus)).String()}, "no,no", affinity.Of(first(cpus)), 0},
		{[]string{"GOMEMLIMIT=off"}, nil, "no,off", cpus, syscall.SIGHUP},
	} {
		p := start(t, "http", func(c *exec.Cmd) {
			for _, name := range []string{"GOMAXPROCS", "GOMEMLIMIT"} {
				c.Env = slices.DeleteFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
			}
			c.Env = append(c.Env, tt.env...)
		}, append(tt.args, "-workers=2")...)
		l := load(p, 4, 5)
		l.Path = "/program"
		if tt.afterwards != 0 {
			p.Signal(tt.afterwards)
			p.Logged(1, "reloaded")
		}
		r := l.Run(t.Context())
		want := fmt.Sprintf("[%s Cpus_allowed_list: %s] <nil>", tt.variables, tt.cpus)
		if r.Bodies[want] != 20 || r.Failed() != 0 {
			t.Errorf("%q %q: %v; want %s", tt.env, tt.args, r.Bodies, want)
		}
		p.Stop()
	}
}

func first(cpus affinity.Set) int {
	cpu, _ := cpus.First()
	return cpu
}

func TestLazyServers(t *testing.T) {
	t.Parallel()
	p := start(t, "lazy", nil)
	r := load(p, 8, 20).Run(t.Context())
	if pids, _ := answers(t, r); r.Failed() != 0 || len(pids) != len(p.Workers()) {
		t.Errorf("%v by %v", r, pids)
	}
	p.Stop()
}

// TestInline runs the pack as one process, by the environment and by the field.
func TestInline(t *testing.T) {
	t.Parallel()
	for _, start := range []func() *running{
		func() *running {
			return start(t, "lazy", func(c *exec.Cmd) { c.Env = append(c.Env, "GOPHERPACK_INLINE=1") })
		},
		func() *running { return start(t, "http", nil, "-inline") }, // of the field, IsMaster cannot know
	} {
		p := start()
		network, address := p.Listening("pack serves in line, in one process")
		slow := loadOn(network, address, 5, 1)
		slow.Path = "/slow"
		u := apply(t, slow)
		u.until(&u.sent, 5)
		if n := len(p.Workers()); n != 0 {
			t.Errorf("it has %d workers", n)
		}
		p.Stop()
		loseNothing(t, u)
	}
}

// TestRunHere runs a pack in line within this process, as a user's own test would.
func TestRunHere(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := pack.New(pack.Config{Inline: true, Logger: slog.New(slog.DiscardHandler)})
	path := filepath.Join(t.TempDir(), "socket")
	p.Handle("unix", path, &http.Server{Handler: handler()})
	draining := pack.Draining(t.Context())
	result := make(chan error, 1)
	go func() { result <- p.Run(ctx) }()
	for deadline := time.Now().Add(inTime); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if r := loadOn("unix", path, 2, 5).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	if id, ok := pack.WorkerID(); id != 0 || !ok || pack.IsMaster() {
		t.Errorf("in line it is worker %d, %v", id, ok)
	}
	select {
	case <-draining:
		t.Error("it drains already")
	default:
	}
	cancel()
	<-draining
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
	t.Parallel()
	p := start(t, "http", func(c *exec.Cmd) {
		c.Env = append(c.Env, "GOPHERPACK_IDENTITY=id=0 generation=1 cpus=0", "PROCGROUP_LIFELINE=3,1")
	})
	if r := load(p, 4, 5).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.Stop()
}

func TestMaskOfOneCPUAndMoreWorkers(t *testing.T) {
	t.Parallel()
	first, _ := allowed(t, 1).First()
	p := start(t, "http", nil, "-workers=3", fmt.Sprintf("-cpus=%s", affinity.Of(first)))
	p.Addresses()
	workers := p.Workers()
	if len(workers) != 3 {
		t.Errorf("workers %v", workers)
	}
	for _, pid := range workers {
		if got := masks(t, pid); len(got) != 1 || !got[fmt.Sprint(first)] {
			t.Errorf("masks %v", got)
		}
	}
	p.Stop()
}
