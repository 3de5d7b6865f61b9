package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

// unit is a socket of a socket unit: systemd's own copy, which is closed when the test ends.
func unit(t *testing.T, network, address string, shares bool) net.Listener {
	t.Helper()
	config := net.ListenConfig{}
	if shares {
		config.Control = reuseport.Control
	}
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// pass returns a socket as it is passed to a new process.
func pass(t *testing.T, name string, c syscall.Conn) systemd.Descriptor {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	d := systemd.Descriptor{FD: -1, Name: name}
	rc.Control(func(fd uintptr) { d.FD, err = dup(int(fd)) })
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// passTo passes sockets to a keeper, which must not complain.
func passTo(t *testing.T, k *Keeper, all ...systemd.Descriptor) {
	t.Helper()
	if wrong := k.TakePassed(all); wrong != nil {
		t.Fatal(wrong)
	}
}

// TestGiven has endpoints take the sockets of socket units that have their addresses, and no others.
func TestGiven(t *testing.T) {
	for _, tt := range []struct {
		unit, address string // of the unit, and for Handle
		taken         bool
	}{
		{"tcp4 127.0.0.1", "tcp 127.0.0.1", true},
		{"tcp4 127.0.0.1", "tcp localhost", true},
		{"tcp4 127.0.0.1", "tcp4 localhost", true},
		{"tcp4 127.0.0.1", "tcp 127.0.0.2", false},
		{"tcp4 0.0.0.0", "tcp4 ", true},
		{"tcp4 0.0.0.0", "tcp ", false}, // which is more
		{"tcp ", "tcp ", true},
		{"tcp ", "tcp 0.0.0.0", true}, // package net has it mean all
		{"tcp ", "tcp6 ", false},
		{"tcp6 ", "tcp6 ", true},
		{"tcp6 ", "tcp ", false},
		{"tcp6 [::1]", "tcp [::1]", true},
		{"tcp ", "tcp 127.0.0.1", false},
	} {
		t.Run(tt.unit+" for "+tt.address, func(t *testing.T) {
			network, host, _ := strings.Cut(tt.unit, " ")
			if !hasIPv6() && network != "tcp4" {
				t.Skip("there is no IPv6")
			}
			theirs := unit(t, network, host+":0", false)
			port := portOf(theirs.Addr().String())
			k := keeper(t)
			passed := pass(t, "web", theirs.(*net.TCPListener))
			passTo(t, k, passed)
			network, host, _ = strings.Cut(tt.address, " ")
			e := wire.Endpoint{Network: network, Address: host + ":" + port}
			info, err := k.Open(t.Context(), e, 3)
			switch {
			case !tt.taken && err == nil && info.Given == "" && host == "127.0.0.2": // beside it
			case !tt.taken:
				if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "systemd has passed a socket that listens") {
					t.Errorf("%+v, %v", info, err)
				}
			case err != nil:
				t.Error(err)
			case info.Given != "web" || !info.Shared || info.Alone == nil || info.Sockets != 1:
				t.Errorf("%+v", info)
			}
			if left := k.Left(); len(left) == 1 == tt.taken {
				t.Errorf("left: %q", left)
			}
			if !tt.taken && syscall.Close(passed.FD) != nil {
				t.Error("it was closed, though it is none of the pack's")
			}
		})
	}
}

// TestGivenIsNotAny has an endpoint for which any port will do, but not that of a unit.
func TestGivenIsNotAny(t *testing.T) {
	theirs := unit(t, "tcp4", "127.0.0.1:0", false)
	k := keeper(t)
	passed := pass(t, "web", theirs.(*net.TCPListener))
	passTo(t, k, passed)
	if info := open(t, k, tcp("127.0.0.1:0"), 2); info.Given != "" || info.Address == theirs.Addr().String() {
		t.Errorf("%+v", info)
	}
	if left := k.Left(); len(left) != 1 || syscall.Close(passed.FD) != nil {
		t.Errorf("left: %q", left)
	}
}

func hasIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}

// TestGivenAmong opens sockets beside one that shares its address. What is queued on them is served before they are
// closed, and the unit's goes on, alone, as it was.
func TestGivenAmong(t *testing.T) {
	theirs := unit(t, "tcp4", "127.0.0.1:0", true)
	address := theirs.Addr().String()
	for range 2 { // one service after the other
		k := keeper(t)
		passTo(t, k, pass(t, "web", theirs.(*net.TCPListener)))
		e := tcp(address)
		info := open(t, k, e, 3)
		if info.Given != "web" || info.Shared || info.Sockets != 3 || info.Alone != nil {
			t.Fatalf("%+v", info)
		}
		if got := chosen(t, k, info); len(got) != 3 {
			t.Errorf("only sockets %v got connections", got)
		}
		states, files := export(t, k, nil) // an upgrade knows of it
		next := keeper(t)
		if _, err := next.Import(states, files); err != nil {
			t.Fatal(err)
		}
		closeFiles(files)
		k.open[e].release()
		delete(k.open, e)
		if err := next.QuiesceFinal(0); !errors.Is(err, errGiven) {
			t.Errorf("keep connections from systemd's socket: %v", err)
		}
		if err := next.QuiesceFinal(1); err != nil {
			t.Errorf("keep connections from another: %v", err)
		}
		if got := chosen(t, next, info); len(got) != 1 || got[0] != 0 {
			t.Errorf("sockets %v got connections; want systemd's", got)
		}
		if kept := next.ToKeep(); len(kept) != 1 { // of worker 2
			t.Errorf("%v", kept)
		}
		next.Close()
		for range 20 {
			if !reaches(t, "tcp", address, theirs) {
				t.Fatal("a connection does not come to the socket of the unit")
			}
		}
	}
}

// TestGivenUnix serves the Unix socket of a unit, and leaves it and its file alone.
func TestGivenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web")
	theirs := unit(t, "unix", path, false)
	k := keeper(t)
	passTo(t, k, pass(t, "web", theirs.(*net.UnixListener)))
	info := open(t, k, local(path), 3)
	if info.Given != "web" || !info.Shared || info.Address != path {
		t.Errorf("%+v", info)
	}
	if !reaches(t, "unix", path, listener(t, k, local(path), 2)) {
		t.Error("a connection does not come to a worker")
	}
	k.QuiesceEndpoint(local(path))
	k.QuiesceFinal(0)
	k.Close()
	if !reaches(t, "unix", path, theirs) {
		t.Error("a connection does not come to the socket of the unit")
	}
}

// keepAllOf is a systemd that keeps the sockets of a keeper, which ends without closing anything.
func keepAllOf(t *testing.T, k *Keeper) (all []systemd.Descriptor) {
	t.Helper()
	for name, socket := range k.ToKeep() {
		if len(name) > 255 || strings.Contains(name, ":") {
			t.Errorf("systemd takes no such name: %q", name)
		}
		all = append(all, pass(t, name, socket))
	}
	for e, s := range k.open {
		s.release()
		delete(k.open, e)
	}
	return all
}

// TestKept has a keeper take over the sockets of another that was killed, with what is queued on them, for as many
// workers, more, or fewer, and by an address that is written otherwise.
func TestKept(t *testing.T) {
	for _, workers := range []int{3, 5, 2} {
		for _, address := range []string{"127.0.0.1:0", "localhost:"} {
			t.Run(fmt.Sprint(workers, " ", address), func(t *testing.T) {
				before := keeper(t)
				info := open(t, before, tcp("127.0.0.1:0"), 3)
				if address != "127.0.0.1:0" {
					address += portOf(info.Address)
				}
				before.Direct(2, nil) // as if it was about to have fewer workers
				k := keeper(t)
				passTo(t, k, keepAllOf(t, before)...)
				const queued = 20
				for range queued {
					c, err := net.Dial("tcp", info.Address)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
				}
				after := open(t, k, tcp(address), workers)
				if after.Kept != 3 || after.Sockets != workers || after.Address != info.Address || after.Shared {
					t.Errorf("%+v", after)
				}
				n := 0
				for _, l := range k.Listeners(tcp(address), after.Sockets) {
					n += acceptAll(t, l)
				}
				if n != queued {
					t.Errorf("%d of %d connections are left", n, queued)
				}
				if got := chosen(t, k, after); len(got) != workers {
					t.Errorf("sockets %v got connections", got)
				}
				if len(k.ToKeep()) != workers || k.Left() != nil {
					t.Errorf("%v", k.ToKeep())
				}
			})
		}
	}
}

// TestKeptUnwanted closes what nobody wants any more.
func TestKeptUnwanted(t *testing.T) {
	before := keeper(t)
	info := open(t, before, tcp("127.0.0.1:0"), 2)
	k := keeper(t)
	passTo(t, k, keepAllOf(t, before)...)
	if left := k.Left(); left != nil {
		t.Errorf("%q: nobody else has asked for it", left)
	}
	if _, err := net.Dial("tcp", info.Address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v; want it to be closed", err)
	}
}

// TestKeptUnix takes over a Unix socket if its file is in its place, and removes the file in the end. Else it is bound
// anew.
func TestKeptUnix(t *testing.T) {
	for _, gone := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "a")
		before := keeper(t)
		open(t, before, local(path), 2)
		k := keeper(t)
		passTo(t, k, keepAllOf(t, before)...)
		if gone {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		info := open(t, k, local(path), 2)
		if kept := info.Kept == 1; kept == gone || !info.Shared || info.Address != path {
			t.Errorf("%+v", info)
		}
		if !reaches(t, "unix", path, listener(t, k, local(path), 0)) {
			t.Error("a connection does not come to a worker")
		}
		k.Left()
		k.Close()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is left: %v", err)
		}
	}
}

// TestPassedWrong is about what no pack can serve.
func TestPassedWrong(t *testing.T) {
	packets, err := net.ListenPacket("unixgram", t.TempDir()+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	theirs := unit(t, "tcp4", "127.0.0.1:0", false)
	conn, err := net.Dial("tcp", theirs.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file := openPipe(t)
	defer file.Close()
	k := keeper(t)
	all := []systemd.Descriptor{
		pass(t, "packets", packets.(*net.UnixConn)), pass(t, "conn", conn.(*net.TCPConn)), pass(t, "pipe", file),
		{FD: 1 << 20, Name: "none"},
	}
	wrong := k.TakePassed(all)
	for i, want := range []string{"(packets): it is for datagrams", "(conn): it does not listen", "(pipe): it is no socket", "(none)"} {
		if len(wrong) != 4 || !strings.Contains(wrong[i].Error(), want) {
			t.Errorf("%v; want %q", wrong, want)
		}
	}
	for _, d := range all[:3] { // they are left to whoever knows what they are
		if err := syscall.Close(d.FD); err != nil {
			t.Error(err)
		}
	}
}

// TestKeptName wants names that systemd takes, each of one socket.
func TestKeptName(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range []wire.Endpoint{
		tcp(":80"), tcp("[::1]:80"), {Network: "tcp", Address: ":80", Index: 1}, {Network: "tcp", Address: ":80", Own: true},
		local("/run/a:b"), local(strings.Repeat("ä", 200)), local(strings.Repeat("ä", 199) + "b"),
	} {
		for i := range 2 {
			name := keptName(e, i, nil)
			if len(name) > 255 || strings.ContainsAny(name, ":\x00 ") || seen[name] || keptIndex(name) != i || !IsKept(name) {
				t.Errorf("%q of %v", name, e)
			}
			seen[name] = true
		}
	}
}
