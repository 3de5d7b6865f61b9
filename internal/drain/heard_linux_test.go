package drain

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test"
)

// TestHeardAt has the kernel let one client in that has spoken, and one that has not.
func TestHeardAt(t *testing.T) {
	test.NotEmulated(t, "TCP_INFO is empty")
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rc, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1) })
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hello", ""} {
		begun := time.Now()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.Write([]byte(word))
		took := time.Since(begun)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		now := time.Now()
		had := now.Sub(heardAt(c, now))
		if over := now.Sub(heardAt(tls.Client(c, nil), now)); over != had {
			t.Errorf("over TLS %v, not %v", over, had)
		}
		if waited := word == ""; waited != (had > 0) && took < newConnGrace || had >= newConnGrace {
			t.Errorf("%q: it has had %v of its time", word, had)
		}
	}
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	if now := time.Now(); heardAt(c, now) != now {
		t.Error("what is no socket was kept")
	}
}
