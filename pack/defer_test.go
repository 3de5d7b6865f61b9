//go:build linux

package pack_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// silent is a load of clients that connect, say nothing for a while, and only then ask.
func silent(p *running) strictclient.Load { return silentOn(p.Address()) }

func silentOn(address string) strictclient.Load {
	return strictclient.Load{Network: "tcp", Address: address, Clients: 50, Silence: 700 * time.Millisecond}
}

// spoke ends silent loads, whose clients must have been answered, or refused, if the pack has stopped. A pack waits for
// a second, on a busy machine for less of what a client takes to be a second, so that only those count who said something
// soon.
func spoke(t *testing.T, stopped bool, loads ...*underLoad) {
	t.Helper()
	for _, u := range loads {
		r := u.finish()
		t.Log(r)
		for _, f := range r.Samples {
			switch silence := f.Spoke.Sub(f.Opened); {
			case stopped && f.Kind == "connect: connection refused":
			case silence > 300*time.Millisecond:
			case stopped && os.Geteuid() != 0 && resetAsNew(r) > 0:
			default:
				t.Errorf("%s, after a silence of %v: %v", f.Kind, silence, f.Err)
			}
		}
		if r.Requests == 0 {
			t.Errorf("%v", r)
		}
	}
}

// TestSilentClients changes packs, and stops them, whose clients say nothing for a while when they are connected.
// Nobody has let them in then.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		tls  *tls.Config
	}{
		{"plaintext", []string{"http"}, nil},
		{"at once", []string{"http", "-acceptatonce"}, nil},
		{"rolling", []string{"http", "-rolling"}, nil},
		{"TLS", []string{"https"}, &tls.Config{InsecureSkipVerify: true}},
		{"steered", []string{"steered", "-epsilon=0.25"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.args[0], nil, append(tt.args[1:], "-workers=2", "-generations=20")...)
			l := silent(p)
			l.TLS = tt.tls
			u := apply(t, l)
			p.changes(u, mixed(test.Times(1, 3))...)
			for i, s := range slices.Repeat([]syscall.Signal{syscall.SIGTTIN, syscall.SIGTTOU}, test.Times(1, 3)) {
				u.until(&u.answered, u.answered.Load()+50)
				p.Signal(s)
				p.Logged(i+1, "number of workers changed")
			}
			u.until(&u.answered, u.answered.Load()+50)
			p.Stop()
			spoke(t, true, u)
		})
	}
}

// TestSilentClientsOfTwoGenerations stops a pack during a reload.
func TestSilentClientsOfTwoGenerations(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2", "-minready=1m")
	u := apply(t, silent(p))
	u.until(&u.answered, 50)
	p.Signal(syscall.SIGHUP)
	p.Until("both generations", program.Patience, func() bool { return len(p.Workers()) == 4 })
	u.until(&u.answered, u.answered.Load()+50)
	p.Stop()
	spoke(t, true, u)
}

// TestSilentClientsOfOrphans kills the master.
func TestSilentClientsOfOrphans(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("keeping new connections out needs CAP_NET_ADMIN")
	}
	p := start(t, "http", nil, "-workers=2")
	u := apply(t, silent(p))
	u.until(&u.answered, 50)
	p.Signal(syscall.SIGKILL)
	p.WaitSilent()
	spoke(t, true, u)
}

// TestSilentClientsOfAnAddress gives up an address.
func TestSilentClientsOfAnAddress(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("keeping new connections out needs CAP_NET_ADMIN")
	}
	c := newConfig(t, "tcp 127.0.0.1:0", "tcp4 127.0.0.1:0")
	p := start(t, "at", nil, "-config="+c.name, "-workers=2")
	var addresses []string
	for _, a := range p.Addresses() {
		addresses = append(addresses, a[strings.Index(a, " ")+1:])
	}
	stays, goes := apply(t, silentOn(addresses[0])), apply(t, silentOn(addresses[1]))
	for _, u := range []*underLoad{stays, goes} {
		u.until(&u.answered, 50)
	}
	c.set("tcp " + addresses[0])
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloaded")
	p.Logged(1, "generation has drained")
	stays.until(&stays.answered, stays.answered.Load()+50)
	spoke(t, true, goes)
	spoke(t, false, stays)
	p.Stop()
}

// TestDeferFollowsTheServer has other servers serve an address after reloads, and after one that fails. Who greets
// clients does so at once.
func TestDeferFollowsTheServer(t *testing.T) {
	t.Parallel()
	c := newConfig(t, "tcp 127.0.0.1:0")
	p := start(t, "at", nil, "-config="+c.name, "-workers=2")
	_, address := port(p)
	reload := func(n int, line string) {
		t.Helper()
		c.set(line)
		p.Signal(syscall.SIGHUP)
		p.Logged(n, "reloaded")
		p.Logged(n, "generation has drained")
	}
	keeps(t, address, true)
	reload(1, "greet tcp "+address)
	keeps(t, address, false)
	client, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if text, err := io.ReadAll(client); string(text) != "hello\n" {
		t.Errorf("%q, %v; want to be greeted", text, err)
	}
	c.set("tcp "+address, "tcp 192.0.2.1:1")
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reload failed, the old workers go on")
	keeps(t, address, false)
	reload(2, "tcp "+address)
	keeps(t, address, true)
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	keeps(t, address, true)
	p.Signal(syscall.SIGTTIN)
	p.Logged(1, "number of workers changed")
	for range 5 { // whichever socket it comes to
		keeps(t, address, true)
	}
	p.Stop()
}

// TestAcceptAtOnce is about who lets in silent clients.
func TestAcceptAtOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want bool
	}{
		{[]string{"http"}, true},
		{[]string{"https"}, true},
		{[]string{"http", "-inline"}, true},
		{[]string{"tcp", "-tls"}, true},
		{[]string{"tcp"}, false},
		{[]string{"func"}, false},
		{[]string{"http", "-acceptatonce"}, false},
		{[]string{"http", "-acceptatonce", "-inline"}, false},
		{[]string{"wrapped"}, false},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.args[0], nil, tt.args[1:]...)
			up := "pack is up"
			if slices.Contains(tt.args, "-inline") {
				up = "pack serves in line, in one process"
			}
			_, address, _ := strings.Cut(p.ListeningOn(up)[0], " ")
			keeps(t, address, tt.want)
			p.Stop()
		})
	}
}

// keeps checks whether a client of an address that says nothing is kept by the kernel, and not let in. Where the machine
// is busy, one is kept for a moment, or what is looked at is late.
func keeps(t *testing.T, address string, want bool) {
	t.Helper()
	for range 20 {
		if staysKept(t, address) == want {
			return
		}
	}
	t.Errorf("a silent client of %s is kept: %v; want %v", address, !want, want)
}

func staysKept(t *testing.T, address string) bool {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for begun := time.Now(); isKept(t, c); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 500*time.Millisecond {
			return true
		}
	}
	return false
}

// isKept reports whether the kernel knows a client only as one in the handshake (proc_net_tcp(5)).
func isKept(t *testing.T, c net.Conn) bool {
	t.Helper()
	row := fmt.Appendf(nil, ":%04X 03 ", c.LocalAddr().(*net.TCPAddr).Port)
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if bytes.Contains(table, row) {
			return true
		}
	}
	return false
}
