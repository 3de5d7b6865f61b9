package sockets

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestDefer has clients say nothing at first. They are in no queue until they have spoken, or what lets them in only
// then was ended, and a second has passed.
func TestDefer(t *testing.T) {
	for _, tt := range []struct{ name, network, listen, dial string }{
		{"IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "tcp6", "[::1]:0", "::1"},
		{"both", "tcp", ":0", "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := keeper(t)
			e := wire.Endpoint{Network: tt.network, Address: tt.listen}
			info, err := k.Open(t.Context(), e, 1)
			if errors.Is(err, errUnavailable) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			k.Defer(e, true)
			_, port, _ := net.SplitHostPort(info.Address)
			l := listener(t, k, e, 0)
			dial := func() net.Conn {
				t.Helper()
				c, err := net.Dial("tcp", net.JoinHostPort(tt.dial, port))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}

			talks := kept(t, dial)
			talks.Write([]byte("hello"))
			acceptOne(t, l)

			silent := kept(t, dial)
			d := EndDefer([]net.Listener{l})
			if !d.ports[portOfListener(l.(*net.TCPListener))] {
				t.Errorf("what was ended is %v", d)
			}
			d.Await(t.Context(), patience)
			if r := requestsOf(t, silent); len(r) > 0 {
				t.Errorf("%+v comes still", r)
			}
			acceptOne(t, l)
			if d := EndDefer([]net.Listener{l}); len(d.ports) > 0 {
				t.Errorf("ended again: %v", d)
			}
			at := dial()
			acceptOne(t, l)
			at.Close()
		})
	}
}

// kept returns a silent client that is not let in.
func kept(t *testing.T, dial func() net.Conn) net.Conn {
	t.Helper()
	for {
		begun := time.Now()
		c := dial()
		switch r := requestsOf(t, c); {
		case len(r) > 0:
			return c
		case time.Since(begun) < deferTime: // else it took so long
			t.Fatal("a silent client is let in at once")
		}
	}
}

// requestsOf returns what the kernel knows of a client that it has not let in.
func requestsOf(t *testing.T, c net.Conn) []request {
	t.Helper()
	all, err := requests(true, true)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(r request) bool { return r.port.number != uint16(c.RemoteAddr().(*net.TCPAddr).Port) })
}

// acceptOne accepts one connection, which must be there.
func acceptOne(t *testing.T, l net.Listener) {
	t.Helper()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := l.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	c.Close()
}

// TestDeferOfMore has sockets be opened for more workers, and taken over by another program, or not.
func TestDeferOfMore(t *testing.T) {
	k := keeper(t)
	e := tcp("127.0.0.1:0")
	open(t, k, e, 1)
	values := func() (all []int) {
		for _, l := range k.open[e].listeners {
			all = append(all, deferValue(t, l))
		}
		return all
	}
	k.Defer(e, true)
	if err := k.Grow(t.Context(), 3, nil); err != nil {
		t.Fatal(err)
	}
	if v := values(); !slices.Equal(v, []int{1, 1, 1}) {
		t.Errorf("the option is %v", v)
	}
	k.Defer(e, false)
	k.Grow(t.Context(), 4, nil)
	if v := values(); !slices.Equal(v, []int{0, 0, 0, 0}) {
		t.Errorf("the option is %v", v)
	}
	k.Defer(tcp("127.0.0.1:1"), true) // there are none
}

// TestDeferLeavesTheUsers has a user set the option by himself.
func TestDeferLeavesTheUsers(t *testing.T) {
	k := keeper(t)
	k.Control = func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 20) })
		return errors.Join(cerr, err)
	}
	e := tcp("127.0.0.1:0")
	open(t, k, e, 1)
	l := k.open[e].listeners[0]
	own := deferValue(t, l)
	k.Defer(e, true)
	k.Defer(e, false)
	d := EndDefer([]net.Listener{listener(t, k, e, 0)})
	if v := deferValue(t, l); own < 20 || v != own || len(d.ports) > 0 {
		t.Errorf("the option was %d, and is %d, and %v was ended", own, v, d)
	}
}

func deferValue(t *testing.T, c syscall.Conn) (value int) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) {
		value, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestAwaitEnds has clients of which nothing comes be waited for no longer than is said.
func TestAwaitEnds(t *testing.T) {
	k := keeper(t)
	e := tcp("127.0.0.1:0")
	open(t, k, e, 1)
	k.Defer(e, true)
	l := listener(t, k, e, 0)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d := EndDefer([]net.Listener{l})
	d.Await(t.Context(), time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.Await(ctx, patience)
	if r := requestsOf(t, c); len(r) != 1 {
		t.Skipf("%v: this took a second", r) // the machine is busy
	}
}

// TestRequestComes is about who is waited for.
func TestRequestComes(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		request
		waited time.Duration
		want   bool
	}{
		{request{due: 1000 * ms}, 0, true},
		{request{due: 1 * ms}, 0, true},
		{request{due: 500 * ms}, 500 * ms, true},
		{request{due: 900 * ms}, 500 * ms, false}, // it is new
		{request{due: 0}, 1100 * ms, true},        // the kernel is late
		{request{due: 900 * ms}, 1100 * ms, false},
		{request{retries: 1, due: 1990 * ms}, 0, true},
		{request{retries: 1, due: 1990 * ms}, 1200 * ms, true},
		{request{retries: 1, due: 1500 * ms}, 0, false}, // nobody has answered
		{request{retries: 2, due: 3990 * ms}, 0, false},
	} {
		if got := tt.comes(tt.waited); got != tt.want {
			t.Errorf("%+v, after %v: %v", tt.request, tt.waited, got)
		}
	}
}

// TestListed reads tables of /proc.
func TestListed(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const v4 = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n" +
		"   1: 0100007F:1F90 0100007F:C001 03 00000000:00000000 01:00000032 00000000     0        0 0 1 0\n" +
		"   2: 0100007F:1F90 0100007F:C002 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0\n" +
		"   3: 0100007F:1F91 0100007F:C003 03 00000000:00000000 01:000000C8 00000001     0        0 0 1 0\n" +
		"   4: x 0100007F:C003 03 00000000:00000000 01:000000C8 00000001     0        0 0 1 0\n   5:\n"
	const v6 = "  sl\n" +
		"   0: 00000000000000000000000001000000:1F92 00000000000000000000000001000000:C001 03 0:0 01:00000064 00000000 0 0 0\n"
	want := []request{
		{port{8080, false}, 0, 500 * time.Millisecond}, {port{8081, false}, 1, 2 * time.Second}, {port{8082, true}, 0, time.Second},
	}
	all, err := listed(fstest.MapFS{"self/net/tcp": file(v4), "self/net/tcp6": file(v6)})
	if err != nil || !slices.Equal(all, want) {
		t.Errorf("%+v, %v; want %+v", all, err, want)
	}
	if all, err := listed(fstest.MapFS{"self/net/tcp": file(v4)}); err != nil || !slices.Equal(all, want[:2]) {
		t.Errorf("without IPv6: %+v, %v", all, err)
	}
	if _, err := listed(fstest.MapFS{}); err == nil {
		t.Error("without /proc there is no error")
	}
	if _, err := listed(os.DirFS("/proc")); err != nil {
		t.Error(err)
	}
}
