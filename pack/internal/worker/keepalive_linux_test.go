package worker

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test"
)

// TestKeepAliveIsInherited compares the options of a connection that a worker accepts with those of any other, and
// holds that nobody sets them: a change of the socket's shows.
func TestKeepAliveIsInherited(t *testing.T) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // as a pack's
	plain, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	want := acceptedOptions(t, plain)
	f, err := plain.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := fileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := acceptedOptions(t, l); got != want || want.keepAlive == 0 || want.noDelay == 0 {
		t.Errorf("accepted with %+v, by package net with %+v", got, want)
	}
	if err := unix.SetsockoptInt(int(f.Fd()), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77); err != nil {
		t.Fatal(err)
	}
	want.idle = 77
	again, err := fileListener(f) // as that of the next worker
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, l := range []net.Listener{l, again} {
		if got := acceptedOptions(t, l); got != want {
			t.Errorf("accepted with %+v, want the socket's, %+v", got, want)
		}
	}
}

// options are those that package net sets.
type options struct{ keepAlive, idle, interval, count, noDelay int }

// acceptedOptions returns those of a connection that a listener accepts.
func acceptedOptions(t *testing.T, l net.Listener) (o options) {
	t.Helper()
	_, c := test.Connected(t, l)
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	get := func(fd uintptr, level, option int) int {
		v, err := unix.GetsockoptInt(int(fd), level, option)
		if err != nil {
			t.Error(err)
		}
		return v
	}
	rc.Control(func(fd uintptr) {
		o = options{
			keepAlive: get(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE),
			idle:      get(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE),
			interval:  get(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL),
			count:     get(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT),
			noDelay:   get(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY),
		}
	})
	return o
}
