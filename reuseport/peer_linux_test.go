package reuseport_test

import (
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	libp2p "github.com/libp2p/go-reuseport"
	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/reuseport"
)

// TestPeer shares ports with go-reuseport, and dials from them.
func TestPeer(t *testing.T) {
	l := openGroup(t, &reuseport.Config{}, "tcp4", "127.0.0.1:0", 1)[0]
	theirs, err := libp2p.Listen("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if got, _ := connectAndCount(t, []net.Listener{l, theirs}, 200); got[0] == 0 || got[1] == 0 {
		t.Errorf("200 connections went to %v", got)
	}

	theirs, err = libp2p.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	there, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	dial(t, "tcp4", theirs.Addr().String(), there.Addr().String())
	l = openGroup(t, &reuseport.Config{Exclusive: true}, "tcp4", "127.0.0.1:0", 1)[0]
	c, err := libp2p.Dial("tcp4", l.Addr().String(), there.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	alone := &reuseport.Config{Exclusive: true}
	if l, err := alone.Listen(t.Context(), "tcp4", theirs.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("exclusive where go-reuseport listens: %v, %v; want EADDRINUSE", l, err)
	}

	p, err := reuseport.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	packets, err := libp2p.ListenPacket("udp4", p.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	packets.Close()
}

const nobody = 65534

// asNobody opens a packet socket of another user, with all that makes sharing easy.
func asNobody(t *testing.T, address string) error {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.RawSyscall(unix.SYS_SETFSUID, nobody, 0, 0) // whose a socket is; of this thread alone
	defer unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
	if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0); now != nobody {
		t.Skipf("there is no user %d here", nobody)
	}
	p, err := libp2p.ListenPacket("udp4", address)
	if err == nil {
		p.Close()
	}
	return err
}

// TestOtherUser cannot take a UDP address. That is why go-reuseport sets no options of ours there.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can open sockets of another user")
	}
	theirs, err := libp2p.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := asNobody(t, theirs.LocalAddr().String()); err != nil {
		t.Errorf("go-reuseport's packet sockets have become safe, use them: %v", err)
	}
	there := packetConn(t, "127.0.0.1:0")
	group, err := reuseport.ListenPacketGroup(t.Context(), "udp4", "127.0.0.1:0", 2)
	if err != nil {
		t.Fatal(err)
	}
	exclusive, err := (&reuseport.Config{Exclusive: true}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	controlled, err := (&net.ListenConfig{Control: reuseport.Control}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(group, exclusive, controlled) {
		defer p.Close()
		if err := asNobody(t, p.LocalAddr().String()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("another user on %s: %v, want EADDRINUSE", p.LocalAddr(), err)
		}
	}
	for _, local := range []string{group[0].LocalAddr().String(), "127.0.0.1:0"} {
		c := dial(t, "udp4", local, there.LocalAddr().String())
		if err := asNobody(t, c.LocalAddr().String()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("another user on %s: %v, want EADDRINUSE", c.LocalAddr(), err)
		}
	}
}
