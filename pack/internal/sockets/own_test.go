package sockets

import (
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// quietHost is an address of Linux's loopback from which no client of other tests connects.
const quietHost = "127.83.71.9"

// freePorts returns the first of n ports in a row on which nobody listens.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", quietHost+":0")
		if err != nil {
			t.Skip(err)
		}
		first := l.Addr().(*net.TCPAddr).Port
		l.Close()
		free := first+n < 1<<16
		for i := range n {
			l, err := net.Listen("tcp", net.JoinHostPort(quietHost, strconv.Itoa(first+i)))
			if err != nil {
				free = false
				break
			}
			defer l.Close()
		}
		if free {
			return first
		}
	}
	t.Fatal("there are no free ports")
	return 0
}

// TestOwn gives each worker an address of its own, and takes and gives such when workers become more and fewer.
func TestOwn(t *testing.T) {
	for _, any := range []bool{true, false} {
		host, port := "localhost", 0
		if !any {
			host, port = quietHost, freePorts(t, 3)
		}
		k := keeper(t)
		e := wire.Endpoint{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(port)), Own: true}
		info := open(t, k, e, 2)
		addresses := strings.Split(info.Address, ", ")
		if info.Sockets != 2 || info.Shared || len(addresses) != 2 {
			t.Fatalf("%+v", info)
		}
		for i, a := range addresses {
			if l := listener(t, k, e, i); l.Addr().String() != a || !reaches(t, "tcp", a, l) {
				t.Errorf("worker %d listens on %s; want %s", i, l.Addr(), a)
			}
			if want := net.JoinHostPort(quietHost, strconv.Itoa(port+i)); !any && a != want {
				t.Errorf("worker %d listens on %s; want %s", i, a, want)
			}
		}
		if k.Listeners(e, 2) != nil {
			t.Error("they are to be steered")
		}
		if err := k.Grow(t.Context(), 3, nil); err != nil {
			t.Fatal(err)
		}
		if err := k.Direct(3, nil); err != nil {
			t.Error(err)
		}
		grown := strings.Split(k.Infos()[0].Address, ", ")
		if len(grown) != 3 || !reaches(t, "tcp", grown[2], listener(t, k, e, 2)) {
			t.Errorf("with a third worker: %v", grown)
		}
		k.Direct(1, nil)
		k.Shrink(1)
		if got := k.Infos()[0].Address; got != addresses[0] {
			t.Errorf("with one worker: %s, want %s", got, addresses[0])
		}
		if any {
			continue
		}
		again := wire.Endpoint{Network: "tcp4", Address: e.Address, Own: true}
		if got, err := k.Open(t.Context(), again, 1, e); err != nil || got.Endpoint != e {
			t.Errorf("spelled otherwise: %+v, %v", got, err)
		}
		again.Own = false
		if _, err := k.Open(t.Context(), again, 1, e); err == nil || !strings.Contains(err.Error(), "change the port") {
			t.Errorf("the address of one for all: %v", err)
		}
	}
}

func TestOwnErrors(t *testing.T) {
	k := keeper(t)
	for e, want := range map[wire.Endpoint]string{
		{Network: "unix", Address: t.TempDir() + "/x", Own: true}: "in each worker: want the network to be tcp",
		{Network: "tcp", Address: "localhost:65535", Own: true}:   "there is no port 65536 for worker 1: choose a lower one",
		{Network: "tcp", Address: "localhost", Own: true}:         "missing port",
	} {
		if info, err := k.Open(t.Context(), e, 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %q", e, info, err, want)
		}
	}
}

// TestControl sets an option of every socket before it is bound, and fails, or panics.
func TestControl(t *testing.T) {
	k := keeper(t)
	var seen []string
	k.Control = func(network, address string, c syscall.RawConn) error {
		seen = append(seen, network+" "+address)
		switch {
		case strings.Contains(address, "[::1]"):
			return syscall.EPERM
		case strings.Contains(address, "127.0.0.2"):
			panic("oops")
		}
		return c.Control(func(fd uintptr) {})
	}
	e := tcp("127.0.0.1:0")
	open(t, k, e, 2)
	path := t.TempDir() + "/x"
	open(t, k, local(path), 1)
	if err := k.Grow(t.Context(), 3, nil); err != nil {
		t.Error(err)
	}
	_, port, _ := net.SplitHostPort(k.Infos()[0].Address)
	want := []string{"tcp4 127.0.0.1:0", "tcp4 127.0.0.1:" + port, "unix " + path, "tcp4 127.0.0.1:" + port}
	if k.Infos()[0].Shared {
		want = []string{"tcp4 127.0.0.1:0", "unix " + path}
	}
	if strings.Join(seen, ", ") != strings.Join(want, ", ") {
		t.Errorf("it was called for %q, want %q", seen, want)
	}
	for address, want := range map[string]string{
		"[::1]:0": "Config.Control: operation not permitted", "127.0.0.2:0": "Config.Control: panic: oops",
	} {
		if _, err := k.Open(t.Context(), tcp(address), 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}
