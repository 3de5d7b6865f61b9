//go:build unix

package sockets

import (
	"errors"
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
	"github.com/gopherpack/gopherpack/reuseport"
)

// skipIfRefused skips a test without the right to keep connections out of a TCP socket.
func skipIfRefused(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 || errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCopyOfDeadSocket has a worker shut its socket down, which ends it for all. A Unix socket is lost; others listen
// again, on the port that they had.
func TestCopyOfDeadSocket(t *testing.T) {
	k := keeper(t)
	for _, e := range []wire.Endpoint{tcp("localhost:0"), tcp(":0"), tcp("[::1]:0"), abstract(t)} {
		address := open(t, k, e, 2).Address
		for i := range 2 {
			worker := listener(t, k, e, i)
			onDescriptor(t, worker, func(fd int) error { return syscall.Shutdown(fd, syscall.SHUT_RD) })
			if q := k.Queued(); slices.Contains(q, Ref{e, i}) {
				t.Errorf("connections wait on %v", q)
			}
			err := handOut(k, e, i)
			if e.Network == "unix" {
				if err == nil || !strings.Contains(err.Error(), "has shut it down") {
					t.Errorf("%s: %v", e, err)
				}
				break
			}
			if err != nil {
				t.Errorf("%s: %v", e, err)
				continue
			}
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Errorf("%s: %v", e, err)
				continue
			}
			c.Close()
			if now := listener(t, k, e, i).Addr().String(); now != address {
				t.Errorf("%s: it listened on %s, and listens on %s", e, address, now)
			}
		}
	}
}

// TestCopyOfSmallQueue has a worker leave hardly any room in the queue of its socket, for whoever gets it next.
func TestCopyOfSmallQueue(t *testing.T) {
	k := keeper(t)
	e := tcp("localhost:0")
	address := open(t, k, e, 1).Address
	onDescriptor(t, listener(t, k, e, 0), func(fd int) error { return syscall.Listen(fd, 0) })
	if err := handOut(k, e, 0); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		c, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
}

func onDescriptor(t *testing.T, l net.Listener, do func(fd int) error) {
	t.Helper()
	rc, err := l.(syscall.Conn).SyscallConn()
	if err == nil {
		err = errors.Join(rc.Control(func(fd uintptr) { err = do(int(fd)) }), err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestQuiesce keeps connections out in each way there is, and lets them in again.
func TestQuiesce(t *testing.T) {
	k := keeper(t)
	e := tcp("127.0.0.1:0")
	address := open(t, k, e, 1).Address
	l := listener(t, k, e, 0)
	for i, quiesce := range []func() error{
		func() error { return k.QuiesceEndpoint(e) },
		func() error { return reuseport.Quiesce(l.(syscall.Conn)) }, // as a worker does
		func() error {
			return errors.Join(k.QuiesceEndpoint(e), k.QuiesceEndpoint(e), k.QuiesceEndpoint(tcp("else")))
		},
	} {
		skipIfRefused(t, quiesce())
		if !isKeptOut("tcp", address) {
			t.Errorf("quiesced in way %d, a connection came in", i)
		}
		for range 2 {
			if err := handOut(k, e, 0); err != nil {
				t.Error(err)
			}
		}
		if !reaches(t, "tcp", address, l) {
			t.Errorf("quiesced in way %d and handed out, connections are kept out", i)
		}
	}
}

// TestQuiesceAbstract leaves a socket as it is that can only be closed.
func TestQuiesceAbstract(t *testing.T) {
	k := keeper(t)
	e := abstract(t)
	open(t, k, e, 2)
	if err := k.QuiesceEndpoint(e); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v; want that this is not supported", err)
	}
	if !reaches(t, "unix", e.Address, listener(t, k, e, 0)) {
		t.Error("it is quiesced")
	}
}

// TestQuiesceUnixEndpoint moves the file away, and back.
func TestQuiesceUnixEndpoint(t *testing.T) {
	k := keeper(t)
	path := t.TempDir() + "/x"
	e := local(path)
	open(t, k, e, 2)
	l := listener(t, k, e, 1)
	for range 2 {
		for range 2 {
			if err := k.QuiesceEndpoint(e); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := net.Dial("unix", path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("quiesced: %v", err)
		}
		for range 2 {
			if err := handOut(k, e, 0); err != nil {
				t.Fatal(err)
			}
		}
		if !reaches(t, "unix", path, l) {
			t.Error("it is not there again")
		}
	}

	// Another process takes the place, and keeps it.
	if err := k.QuiesceEndpoint(e); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := handOut(k, e, 0); !errors.Is(err, fs.ErrExist) {
		t.Errorf("with another's file in its place: %v", err)
	}
	k.Close()
	if !reaches(t, "unix", path, other) {
		t.Error("another's file was removed")
	}
	other.Close()
	isEmpty(t, path)
}

// isEmpty checks that nothing is where a file was.
func isEmpty(t *testing.T, path string) {
	t.Helper()
	dir := path[:strings.LastIndexByte(path, '/')]
	entries, err := os.ReadDir(dir)
	if len(entries) > 0 || err != nil {
		t.Errorf("in the directory are %v, %v", entries, err)
	}
}

// TestQuiesceRemovedFile has nothing to hide, nor to bring back.
func TestQuiesceRemovedFile(t *testing.T) {
	k := keeper(t)
	path := t.TempDir() + "/x"
	e := local(path)
	open(t, k, e, 1)
	if err := errors.Join(os.Remove(path), k.QuiesceEndpoint(e), handOut(k, e, 0)); err != nil {
		t.Error(err)
	}
	k.Close()
	isEmpty(t, path)
}

// TestQuiesceFinal serves what is queued on Unix sockets, and then says that this is the end.
func TestQuiesceFinal(t *testing.T) {
	endpoints := []wire.Endpoint{local(t.TempDir() + "/x")}
	if runtime.GOOS == "linux" {
		endpoints = append(endpoints, abstract(t))
	}
	for _, e := range endpoints {
		k := keeper(t)
		open(t, k, e, 2)
		l := listener(t, k, e, 0)
		const queued = 5
		for range queued {
			c, err := net.Dial("unix", e.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write([]byte("x"))
		}
		for i := range 2 { // each worker asks
			if err := k.QuiesceFinal(i); err != nil {
				t.Fatal(err)
			}
		}
		_, err := net.Dial("unix", e.Address)
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want it refused", e, err)
		}
		if q := k.Queued(); nameless(e.Address) && q != nil {
			t.Errorf("on %v something is queued for good", q)
		}
		for range queued {
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 2)); n != 1 || err != nil {
				t.Errorf("%s: a queued connection: read %d bytes, %v", e, n, err)
			}
			c.Close()
		}
		acceptsNothing(t, l)
		isFinal(t, k, e)
		k.Close()
	}
}

// isFinal checks that a keeper hands a socket out and no successor takes it over.
func isFinal(t *testing.T, k *Keeper, e wire.Endpoint) {
	t.Helper()
	if err := handOut(k, e, 0); err != nil {
		t.Errorf("%s: who is to serve the queue gets %v", e, err)
	}
	if _, _, err := k.Export(nil, nil); err == nil || !strings.Contains(err.Error(), "kept out for good") {
		t.Errorf("%s, afterwards: %v", e, err)
	}
}

// TestQuiesceFinalTCP is not undone when another gets the socket, who is to serve its queue.
func TestQuiesceFinalTCP(t *testing.T) {
	k := keeper(t)
	e := tcp("127.0.0.1:0")
	address := open(t, k, e, 2).Address
	skipIfRefused(t, k.QuiesceFinal(0))
	isFinal(t, k, e)
	if err := k.QuiesceFinal(1); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if listener(t, k, e, 0); !isKeptOut("tcp", address) {
			t.Error("a connection came in")
		}
	}
}

// TestCloseRefuses has workers serve what is queued after the master has closed.
func TestCloseRefuses(t *testing.T) {
	e := abstract(t)
	k := keeper(t)
	open(t, k, e, 1)
	l := listener(t, k, e, 0)
	c, err := net.Dial("unix", e.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k.Close()
	if _, err := net.Dial("unix", e.Address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want it refused", err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
}

// acceptsNothing checks that nothing is queued on a socket.
func acceptsNothing(t *testing.T, l net.Listener) {
	t.Helper()
	rc, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) { _, _, err = syscall.Accept(int(fd)) })
	if !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("accept of an empty queue: %v", err)
	}
}
