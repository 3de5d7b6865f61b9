package sockets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

func tcp(address string) wire.Endpoint   { return wire.Endpoint{Network: "tcp", Address: address} }
func local(address string) wire.Endpoint { return wire.Endpoint{Network: "unix", Address: address} }

// keeper returns one that is closed when the test ends.
func keeper(t *testing.T) *Keeper {
	t.Helper()
	k := New(Files{Mode: 0o600})
	t.Cleanup(k.Close)
	return k
}

// open opens an endpoint and returns what is known of it.
func open(t *testing.T, k *Keeper, e wire.Endpoint, workers int) Info {
	t.Helper()
	info, err := k.Open(t.Context(), e, workers)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// abstract returns a Unix socket that has no file, where there are such.
func abstract(t *testing.T) wire.Endpoint {
	t.Helper()
	if !nameless("@") {
		t.Skip("abstract Unix sockets are Linux's")
	}
	return local(fmt.Sprintf("@%s %d %d", t.Name(), os.Getpid(), time.Now().UnixNano()))
}

// listener returns a worker's copy of its socket.
func listener(t *testing.T, k *Keeper, e wire.Endpoint, i int) net.Listener {
	t.Helper()
	f, err := k.Copy(e, i)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		keepFile(u)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// handOut has a socket be as one that is sent to a worker.
func handOut(k *Keeper, e wire.Endpoint, i int) error {
	f, err := k.Copy(e, i)
	if err == nil {
		f.Close()
	}
	return err
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// reaches reports whether a connection to an endpoint comes to one of the listeners.
func reaches(t *testing.T, network, address string, listeners ...net.Listener) bool {
	t.Helper()
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return false
	}
	defer c.Close()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		for _, l := range listeners {
			l.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(10 * time.Millisecond))
			if a, err := l.Accept(); err == nil {
				a.Close()
				return true
			}
		}
	}
	return false
}

// isKeptOut reports whether nobody can connect to an address.
func isKeptOut(network, address string) bool {
	c, err := net.DialTimeout(network, address, 50*time.Millisecond)
	if err != nil {
		return true
	}
	c.Close()
	return false
}

func TestOpen(t *testing.T) {
	k := keeper(t)
	dir := t.TempDir()
	endpoints := []wire.Endpoint{
		tcp("localhost:0"), {Network: "tcp", Address: "localhost:0", Index: 1},
		{Network: "tcp4", Address: ":0"}, local(dir + "/x"),
	}
	var want []Info
	for _, e := range endpoints {
		info := open(t, k, e, 3)
		shared, n := runtime.GOOS != "linux" || e.Network == "unix", 3
		if shared {
			n = 1
		}
		if info.Endpoint != e || info.Shared != shared || info.Sockets != n {
			t.Errorf("%+v", info)
		}
		if again := open(t, k, e, 2); again != info {
			t.Errorf("opened again: %+v, before %+v", again, info)
		}
		c, err := net.Dial(e.Network, info.Address)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		c.Close()
		want = append(want, info)
	}
	if got := k.Infos(); !slices.Equal(got, want) {
		t.Errorf("Infos: %+v, want %+v", got, want)
	}
	if want[0].Address == want[1].Address {
		t.Errorf("two endpoints are both %s", want[0].Address)
	}

	k.Keep(map[wire.Endpoint]bool{endpoints[0]: true})
	if got := k.Infos(); !slices.Equal(got, want[:1]) {
		t.Errorf("Infos after Keep: %+v", got)
	}
	if _, err := os.Lstat(dir + "/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file after Keep: %v", err)
	}
	if err := handOut(k, endpoints[3], 0); err == nil || !strings.Contains(err.Error(), "there are no sockets") {
		t.Errorf("Copy of what is closed: %v", err)
	}
	open(t, k, endpoints[3], 1)

	k.Close()
	for _, info := range want {
		if c, err := net.Dial(info.Endpoint.Network, info.Address); err == nil {
			c.Close()
			t.Errorf("%s is open after Close", info.Address)
		}
	}
	_, err := k.Open(t.Context(), endpoints[0], 1)
	copyErr := handOut(k, endpoints[0], 0)
	for _, err := range []error{err, copyErr, k.Grow(t.Context(), 9, nil)} {
		if err == nil || !strings.Contains(err.Error(), "the pack is stopping") {
			t.Errorf("after Close: %v", err)
		}
	}
	if k.Infos() != nil || k.Queued() != nil {
		t.Errorf("after Close: %v, %v", k.Infos(), k.Queued())
	}
}

func TestListener(t *testing.T) {
	k := keeper(t)
	e, u := tcp("localhost:0"), local(t.TempDir()+"/x")
	n := open(t, k, e, 3).Sockets
	open(t, k, u, 3)
	own := func(e wire.Endpoint, i int) fs.FileInfo {
		l, err := k.Socket(e, i)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return identity(t, l)
	}
	all := k.Listeners(e, n)
	for i := range all {
		if !os.SameFile(own(e, i), identity(t, all[i])) {
			t.Errorf("worker %d got another's socket", i)
		}
	}
	if !os.SameFile(own(u, 0), own(u, 2)) {
		t.Error("a Unix socket is not shared")
	}
	own(e, n) // it shares one
	if err := handOut(k, e, -1); err == nil {
		t.Error("worker -1 has a socket")
	}
	if l := k.Listeners(u, 1); l != nil {
		t.Errorf("a Unix socket can be steered: %v", l)
	}
	if l := k.Listeners(e, n+1); l != nil {
		t.Errorf("%d of %d sockets", len(l), n)
	}
	if l := k.Listeners(tcp("nowhere"), 1); l != nil {
		t.Errorf("sockets of what is not open: %v", l)
	}
}

// identity tells sockets apart, in whichever descriptors.
func identity(t *testing.T, socket any) fs.FileInfo {
	t.Helper()
	f, err := socket.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TestCloseWhileSending closes a socket while a copy of it is in use, as it is for as long as a worker does not read to
// which it is being sent.
func TestCloseWhileSending(t *testing.T) {
	k := keeper(t)
	e := tcp("localhost:0")
	open(t, k, e, 1)
	f, err := k.Copy(e, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	rc.Control(func(uintptr) {
		go func() {
			k.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Error("it waits")
		}
	})
	<-closed
}

func TestErrors(t *testing.T) {
	k := keeper(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	other, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mine := open(t, k, tcp("127.0.0.1:0"), 1).Address
	_, port, _ := net.SplitHostPort(mine)
	open(t, k, local(dir+"/x"), 1)
	t.Chdir(dir)
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inUse := "(is another instance running?"
	if runtime.GOOS == "linux" {
		inUse = "(this process listens there itself, but not by the pack)"
	}
	for _, tt := range []struct {
		ctx  context.Context
		e    wire.Endpoint
		is   error
		want string
	}{
		{t.Context(), wire.Endpoint{Network: "sctp", Address: ":1"}, nil, "listen sctp :1: want the network to be tcp, "},
		{t.Context(), tcp("localhost"), nil, "missing port"},
		{canceled, tcp("localhost:0"), context.Canceled, "localhost:0: "},
		{canceled, local(dir + "/y"), context.Canceled, "listen unix " + dir + "/y: "},
		{t.Context(), tcp(other.Addr().String()), errInUse, inUse},
		{t.Context(), tcp("localhost:" + port), errInUse, "(this pack listens on tcp " + mine + " already)"},
		{t.Context(), tcp(":" + port), errInUse, "(this pack listens on tcp " + mine + " already)"},
		{t.Context(), wire.Endpoint{Network: "tcp4", Address: ":" + port}, errInUse, "listens on tcp " + mine},
		{t.Context(), tcp("203.0.113.1:0"), errUnavailable, "no interface of this machine has that address"},
		{t.Context(), local("./x"), errInUse, "unix ./x: a process is listening there: address already in use " +
			"(this pack listens on unix " + dir + "/x already)"},
		{t.Context(), local("file"), fs.ErrExist, "there is a file that is not a socket"},
		{t.Context(), local("."), syscall.EISDIR, "it names a directory"},
		{t.Context(), local("none/x"), fs.ErrNotExist, "listen unix none/x: "},
		{t.Context(), local(dir + "/"), syscall.EISDIR, "it names a directory"},
		{t.Context(), local("file/x"), syscall.ENOTDIR, "not a directory"},
		{t.Context(), local(strings.Repeat("x", 120)), syscall.ENAMETOOLONG, "too long"},
	} {
		info, err := k.Open(tt.ctx, tt.e, 2)
		if err == nil || info.Sockets != 0 || !strings.Contains(err.Error(), tt.want) ||
			tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v; want %v, %q", tt.e, err, tt.is, tt.want)
		}
	}
	if infos := k.Infos(); len(infos) != 2 {
		t.Errorf("open are %v", infos)
	}
}

func TestCovers(t *testing.T) {
	v4, v6 := net.IPv4(127, 0, 0, 1), net.IPv6loopback
	for _, tt := range []struct {
		network string
		a, b    net.IP
		want    bool
	}{
		{"tcp", v4, v4, true}, {"tcp", v4, v6, false}, {"tcp", v6, v4, false},
		{"tcp", nil, v4, true}, {"tcp", net.IPv6unspecified, v4, true}, {"tcp6", net.IPv6unspecified, v4, false},
		{"tcp6", net.IPv6unspecified, v6, true}, {"tcp4", net.IPv4zero, v4, true}, {"tcp4", net.IPv4zero, v6, false},
	} {
		a, b := scopeOf(tt.network, &net.TCPAddr{IP: tt.a}), scopeOf("tcp", &net.TCPAddr{IP: tt.b})
		if got := a.covers(b); got != tt.want {
			t.Errorf("%s %v covers %v: %v", tt.network, tt.a, tt.b, got)
		}
	}
}
