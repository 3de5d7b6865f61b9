//go:build linux

package upgrade

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test"
)

// TestKeepAlive compares what an inherited listener makes of its configuration with what the first one made.
func TestKeepAlive(t *testing.T) {
	for name, config := range map[string]net.ListenConfig{
		"default": {}, "off": {KeepAlive: -1}, "idle": {KeepAlive: 77 * time.Second},
		"all": {KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 7 * time.Second, Count: 3}},
	} {
		c := &listenConfig{config}
		first, err := c.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		f, err := first.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		inherited, err := c.fromFile(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer inherited.Close()
		if want, got := keepAlive(t, first), keepAlive(t, inherited); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// keepAlive returns the options of a connection that a listener accepts.
func keepAlive(t *testing.T, l net.Listener) (options [4]int) {
	t.Helper()
	_, c := test.Connected(t, l)
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) {
		options[0], _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		if options[0] == 0 {
			return
		}
		for i, o := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
			options[i+1], _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, o)
		}
	})
	return options
}
