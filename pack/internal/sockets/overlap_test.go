//go:build unix

package sockets

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestOtherSpelling asks for what is open by other names: the same sockets are returned, with what is queued on them.
func TestOtherSpelling(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Symlink(dir, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	network := func(network, address string) wire.Endpoint {
		return wire.Endpoint{Network: network, Address: address}
	}
	for _, tt := range []struct {
		first  wire.Endpoint
		others []wire.Endpoint // P is the port of the first
	}{
		{tcp("localhost:0"), []wire.Endpoint{
			tcp("127.0.0.1:P"), network("tcp4", "localhost:P"), tcp("[::ffff:127.0.0.1]:P"),
		}},
		{tcp(":0"), []wire.Endpoint{tcp("0.0.0.0:P"), tcp("[::]:P")}},
		{network("tcp4", ":0"), []wire.Endpoint{network("tcp4", "0.0.0.0:P")}},
		{local("x.sock"), []wire.Endpoint{local("./x.sock"), local(dir + "/x.sock"), local("link/x.sock")}},
	} {
		k := keeper(t)
		info := open(t, k, tt.first, 2)
		port := info.Address[strings.LastIndexByte(info.Address, ':')+1:]
		c, err := net.Dial(tt.first.Network, info.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, other := range tt.others {
			other.Address = strings.Replace(other.Address, ":P", ":"+port, 1)
			if _, err := k.Open(t.Context(), other, 2); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%s and %s at once: %v", tt.first, other, err)
			}
			got, err := k.Open(t.Context(), other, 2, tt.first)
			if err != nil || got != info {
				t.Errorf("%s, which is open as %s: %+v, %v", other, tt.first, got, err)
			}
		}
		if n := len(k.Infos()); n != 1 {
			t.Errorf("%d endpoints are open", n)
		}
		l := listener(t, k, tt.first, 0)
		if !reaches(t, l.Addr().Network(), info.Address, l, listener(t, k, tt.first, 1)) {
			t.Errorf("%s cannot be reached", tt.first)
		}
		k.Close()
	}
	isEmptyBut(t, dir, "link")
}

// TestZones names the interface of an address by its number, and one where it has no meaning.
func TestZones(t *testing.T) {
	k := keeper(t)
	port := ":" + portOf(open(t, k, tcp("[::1]:0"), 1).Address)
	loopback := loopbackName(t)
	e := tcp("[::1]:0")
	if got, err := k.Open(t.Context(), tcp("[::1%"+loopback+"]"+port), 1, e); err != nil || got.Endpoint != e {
		t.Errorf("[::1%%%s]: %+v, %v", loopback, got, err)
	}
	link := func(zone string) *net.TCPAddr { return &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 1, Zone: zone} }
	lo, err := net.InterfaceByName(loopback)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := scopeOf("tcp", link(loopback)), scopeOf("tcp", link(strconv.Itoa(lo.Index))); a != b {
		t.Errorf("%+v and %+v", a, b)
	}
	if a, b := scopeOf("tcp", link(loopback)), scopeOf("tcp", link(strconv.Itoa(lo.Index+1))); a == b {
		t.Errorf("two links: %+v", a)
	}
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// loopbackName returns the name of the interface that has ::1.
func loopbackName(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			return i.Name
		}
	}
	t.Skip("there is no loopback interface")
	return ""
}

func TestOtherSpellingAbstract(t *testing.T) {
	k := keeper(t)
	e := abstract(t)
	info := open(t, k, e, 1)
	other := local("\x00" + e.Address[1:])
	if got, err := k.Open(t.Context(), other, 1, e); err != nil || got != info {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestOverlap opens addresses beside others that have some of them: whoever is more specific gets what comes, and what
// is left gets the rest when the others are closed.
func TestOverlap(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it takes SO_REUSEPORT as Linux has it")
	}
	for _, tt := range []struct{ network, first, next, nextNetwork string }{
		{"tcp", ":0", "127.0.0.1", "tcp"}, {"tcp", "127.0.0.1:0", "", "tcp"}, {"tcp", ":0", "0.0.0.0", "tcp4"},
		{"tcp4", "0.0.0.0:0", "", "tcp"}, {"tcp4", ":0", "127.0.0.1", "tcp"}, {"tcp", "[::1]:0", "::", "tcp6"},
	} {
		k := keeper(t)
		first := wire.Endpoint{Network: tt.network, Address: tt.first}
		_, port, _ := net.SplitHostPort(open(t, k, first, 2).Address)
		next := wire.Endpoint{Network: tt.nextNetwork, Address: net.JoinHostPort(tt.next, port)}
		if _, err := k.Open(t.Context(), next, 2); !errors.Is(err, syscall.EADDRINUSE) ||
			!strings.Contains(err.Error(), "(this pack listens on "+tt.network+" ") {
			t.Errorf("%s and %s at once: %v", first, next, err)
		}
		info, err := k.Open(t.Context(), next, 2, first)
		if err != nil || info.Endpoint != next || info.Sockets != 2 {
			t.Errorf("%s beside %s: %+v, %v", next, first, info, err)
			continue
		}
		k.Keep(map[wire.Endpoint]bool{next: true})
		host := tt.next
		if host == "" || host == "0.0.0.0" {
			host = "127.0.0.1"
		}
		if !reaches(t, "tcp", net.JoinHostPort(host, port), listener(t, k, next, 0), listener(t, k, next, 1)) {
			t.Errorf("%s cannot be reached when %s is closed", next, first)
		}
		k.Close()
	}
}

// TestOverlapNotPossible says which of our own addresses is in the way, and what to do.
func TestOverlapNotPossible(t *testing.T) {
	k := keeper(t)
	first := tcp(":0")
	_, port, _ := net.SplitHostPort(open(t, k, first, 1).Address)
	next := wire.Endpoint{Network: "tcp6", Address: "[::]:" + port}
	_, err := k.Open(t.Context(), next, 1, first)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "(this pack listens on tcp [::]:"+port+" until ") {
		t.Errorf("%v", err)
	}
}

// TestOverlapWithOthers has somebody else be in the way, too.
func TestOverlapWithOthers(t *testing.T) {
	k := keeper(t)
	first := tcp("127.0.0.1:0")
	_, port, _ := net.SplitHostPort(open(t, k, first, 1).Address)
	other, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skip(err) // only Linux has all of 127.0.0.0/8
	}
	defer other.Close()
	_, err = k.Open(t.Context(), tcp(":"+port), 1, first)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "(is another instance running?") {
		t.Errorf("%v", err)
	}
}
