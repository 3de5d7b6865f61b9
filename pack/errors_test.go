//go:build linux

package pack_test

import (
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"strings"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test/program"
)

// TestFailures starts packs that cannot start. Each ends with one clear error and leaves nothing behind.
func TestFailures(t *testing.T) {
	t.Parallel()
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
	inUse := "pack: listen tcp " + taken.Addr().String() +
		": bind: address already in use (is another instance running?"
	tests := []struct {
		name, program string
		args, env     []string
		want          string // what the error says
	}{
		{name: "port in use", program: "http", args: []string{"-address=tcp " + taken.Addr().String()},
			want: inUse},
		{name: "port in use, asked by a worker", program: "lazy",
			args: []string{"-address=tcp " + taken.Addr().String()}, want: inUse},
		{name: "no such host", program: "http", args: []string{"-address=tcp 127.0.0.1.2:80"},
			want: "pack: listen tcp: lookup 127.0.0.1.2"},
		{name: "no port", program: "http", args: []string{"-address=tcp localhost"}, want: "missing port in address"},
		{name: "no such address", program: "http", args: []string{"-address=tcp 192.0.2.1:0"},
			want: "no interface of this machine has that address"},
		{name: "unknown network", program: "http", args: []string{"-address=sctp :80"},
			want: "pack: listen sctp :80: want the network to be tcp, tcp4, tcp6 or unix"},
		{name: "unknown network, asked by a worker", program: "lazy", args: []string{"-address=udp :80"},
			want: "pack: listen udp :80: want the network to be tcp, tcp4, tcp6 or unix (packets are served by HandlePacket)"},
		{name: "packets of connections", program: "packets", args: []string{"-address=tcp localhost:0"},
			want: "pack: listen tcp localhost:0: want the network to be udp, udp4 or udp6 (connections are served by Handle)"},
		{name: "Unix socket in use", program: "http", args: []string{"-address=unix " + dir + "/alive"},
			want: "pack: listen unix " + dir + "/alive: a process is listening there: address already in use"},
		{name: "Unix socket is a file", program: "http", args: []string{"-address=unix " + dir + "/file"},
			want: "there is a file that is not a socket"},
		{name: "Unix socket in no directory", program: "http", args: []string{"-address=unix " + dir + "/none/x"},
			want: "no such file or directory"},
		{name: "handled in OnStart", program: "broken", args: []string{"-how=handled in OnStart"},
			want: `OnStart: panic: pack: Handle("tcp", "localhost:0") comes too late: call it before Run`},
		{name: "handled twice", program: "broken", args: []string{"-how=twice"},
			want: "pack: tcp localhost:1 is handled twice"},

		{name: "negative workers", program: "http", args: []string{"-workers=-1"},
			want: "pack: the number of workers is negative: -1"},
		{name: "too many workers", program: "http", args: []string{"-workers=100000"},
			want: "pack: 100000 workers: at most 4096"},
		{name: "CPUs not allowed", program: "http", args: []string{"-cpus=0,1000"},
			want: `pack: CPUs "0,1000": this process may not use "1000"`},
		{name: "short hang timeout", program: "http", args: []string{"-hangtimeout=1ms"},
			want: "pack: HangTimeout is 1ms: at least 100ms"},
		{name: "no such policy", program: "http", args: []string{"-hang=3"},
			want: "pack: no such policy for workers that hang: 3"},
		{name: "negative age", program: "http", args: []string{"-maxage=-1s"},
			want: "pack: Recycle.Age is negative: -1s"},
		{name: "memory limits", program: "http", args: []string{"-maxmemory=2", "-hardmemory=1"},
			want: "pack: Recycle.MemoryHard, 1 bytes, is not above Recycle.Memory, 2"},
		{name: "mode", program: "http", args: []string{"-unixmode=4600"}, want: "pack: UnixMode"},
		{name: "owner", program: "http",
			args: []string{"-unixowner=nobody-there", "-address=unix " + dir + "/owned"},
			want: "UnixOwner: user \"nobody-there\": user: unknown user nobody-there"},
		{name: "negative timeout", program: "http", args: []string{"-ready=-1s"},
			want: "pack: ReadyTimeout is negative: -1s"},
		{name: "drain longer than shutdown", program: "http", args: []string{"-drain=2s", "-shutdown=1s"},
			want: "DrainDelay 2s leaves nothing of ShutdownTimeout 1s"},
		{name: "too many files", program: "http", args: []string{"-files=99999999999"},
			want: "raise nofile to 99999999999: the hard limit is"},
		{name: "no such user", program: "http", args: []string{"-user=nobody-at-all"},
			want: `pack: user "nobody-at-all": user: unknown user`},
		{name: "environment: workers", program: "http", env: []string{"GOPHERPACK_WORKERS=some"},
			want: `pack: environment variable GOPHERPACK_WORKERS="some": want a number`},
		{name: "environment: no workers", program: "http", env: []string{"GOPHERPACK_WORKERS=0"}, want: "at least 1"},
		{name: "environment: empty CPU set", program: "http", env: []string{"GOPHERPACK_CPUS=,"},
			want: `GOPHERPACK_CPUS=",": want a list of CPUs`},
		{name: "environment: CPUs", program: "http", env: []string{"GOPHERPACK_CPUS=a-b"},
			want: "want a list of CPUs, such as 0-3,8"},
		{name: "environment: placement", program: "http", env: []string{"GOPHERPACK_PLACEMENT=moon"},
			want: "want cpu, core, cache, node or package"},
		{name: "environment: log", program: "http", env: []string{"GOPHERPACK_LOG=xml"},
			want: `GOPHERPACK_LOG="xml": want text, json or journal`},
		{name: "environment: inline", program: "http", env: []string{"GOPHERPACK_INLINE=perhaps"}, want: "want 0 or 1"},

		{name: "worker panics", program: "broken", args: []string{"-how=panic"},
			want: "pack: a worker failed before it was ready: exit status 2, before it called Run (each worker runs main " +
				"from its beginning, as the master does), panic: cannot open the database"},
		{name: "worker exits", program: "broken", args: []string{"-how=exit"},
			want: "before it was ready: ended by itself, with exit status 0, before it called Run"},
		{name: "worker hangs", program: "broken", args: []string{"-how=hang", "-ready=300ms"},
			want: "killed: not ready within 300ms, before it called Run"},
		{name: "two packs", program: "broken", args: []string{"-how=two packs"},
			want: "another pack runs in this process, or has: one Run serves all addresses, by a Handle for each"},
		{name: "reload in a worker", program: "broken", args: []string{"-how=reload in a worker"},
			want: "reload: this is a worker, and only the master can: call it there, or send the signal to process"},
		{name: "nothing to serve", program: "broken", args: []string{"-how=nothing"},
			want: "pack: there is nothing to serve: call Handle before Run"},
		{name: "nil server", program: "broken", args: []string{"-how=nil"},
			want: "the server for tcp localhost:0 is nil"},
		{name: "Serve fails", program: "broken", args: []string{"-how=serve fails"},
			want: "pack: the server for tcp localhost:0 stopped serving: no more tape"},
		{name: "never accepts", program: "broken", args: []string{"-how=never accepts", "-ready=300ms"},
			want: "not ready within 300ms"},
		{name: "no certificate", program: "https", args: []string{"-nocert"},
			want: "its TLS configuration has no certificate"},
		{name: "OnStart", program: "hooks", args: []string{"-fail=OnStart"}, want: "pack: OnStart: OnStart went wrong"},
		{name: "OnWorkerStart", program: "hooks", args: []string{"-fail=OnWorkerStart"},
			want: "pack: OnWorkerStart: OnWorkerStart went wrong"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.program, func(c *exec.Cmd) { c.Env = append(c.Env, tt.env...) }, tt.args...)
			if status := p.Wait(inTime); status != 1 {
				t.Errorf("exit status %d, want 1", status)
			}
			if !p.Said(tt.want) {
				t.Errorf("no error says %q", tt.want)
			}
			p.NoneLeft()
			said := 0
			for _, line := range p.Other() {
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
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("becoming nobody takes root")
	}
	first, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if strings.TrimSpace(string(first)) != "1024" {
		t.Skipf("ports from %s on are free for all", first)
	}
	p := start(t, "http", asNobody(t), "-address=tcp :80")
	if status := p.Wait(inTime); status != 1 {
		t.Errorf("exit status %d", status)
	}
	if !p.Said("pack: listen tcp :80: bind: permission denied (ports below") {
		t.Error("no clear error")
	}
}

// dirForAll returns a new directory that others may enter, as they may not enter that of t.TempDir.
func dirForAll(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pack")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// asNobody runs a copy of the test binary as uid 65534, which cannot reach go test's own.
func asNobody(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	dir := dirForAll(t)
	if err := program.CopySelf(dir + "/program"); err != nil {
		t.Fatal(err)
	}
	return func(c *exec.Cmd) {
		c.Path, c.Dir = dir+"/program", dir
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

// TestUnprivileged runs a pack without any capability.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the other tests are unprivileged already")
	}
	p := start(t, "http", asNobody(t))
	r := load(p, 16, 20).Run(t.Context())
	if pids, _ := answers(t, r); len(pids) != len(p.Workers()) || r.Failed() != 0 {
		t.Errorf("%v by %v", r, pids)
	}
	p.Stop()
}

func TestUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("workers of another user take root")
	}
	asOther := asNobody(t)
	nobody, err := osuser.LookupId("65534")
	if err != nil {
		t.Skip(err)
	}
	for user, want := range map[string]string{
		"nobody":      "uid=65534 gid=65534 / HOME=" + nobody.HomeDir + " USER=nobody LOGNAME=nobody SHELL=/sh",
		"65534":       "uid=65534 gid=65534 / HOME=" + nobody.HomeDir + " USER=nobody LOGNAME=nobody SHELL=/sh",
		"nobody:root": "uid=65534 gid=0 groups=[] / HOME=" + nobody.HomeDir + " USER=nobody",
		"4711:4712":   "uid=4711 gid=4712 groups=[] / HOME= USER= LOGNAME= SHELL=/sh",
	} {
		p := start(t, "http", func(c *exec.Cmd) {
			asOther(c)
			c.SysProcAttr = nil
			c.Env = append(c.Env, "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/sh")
		}, "-user="+user)
		l := load(p, 4, 5)
		l.Path = "/user"
		r := l.Run(t.Context())
		for body := range r.Bodies {
			who, env, _ := strings.Cut(want, " / ")
			if !strings.HasPrefix(body, who) || !strings.Contains(body, env) || !strings.HasSuffix(body, "no_new_privs=1") {
				t.Errorf("user %s: %s, want %s", user, body, want)
			}
		}
		if r.Failed() != 0 {
			t.Errorf("user %s: %v", user, r)
		}
		p.Stop()
	}
}

// TestUserMayNotExecute has workers of a user who may not execute the program. Run says so, and no worker is tried.
func TestUserMayNotExecute(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("workers of another user take root")
	}
	asOther := asNobody(t)
	var path string
	p := start(t, "http", func(c *exec.Cmd) {
		asOther(c)
		c.SysProcAttr = nil
		path = c.Path
		if err := os.Chmod(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}, "-user=4711:4712")
	p.Wait(inTime)
	want := `user "4711:4712" may not execute ` + path + ": its mode is -rwx------, its owner 0:0"
	if !p.Said(want) {
		t.Errorf("want %s", want)
	}
}
