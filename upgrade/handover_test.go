//go:build linux

package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test/program"
)

// These tests look at what is handed over: that it is the very same socket or file, and works.

// inode returns which socket or file it is.
func inode(c any) (uint64, error) {
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var s unix.Stat_t
	cerr := rc.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &s) })
	if cerr != nil {
		return 0, cerr
	}
	return s.Ino, err
}

func init() {
	scripts["sockets"] = func(l *life) error {
		for _, where := range everywhere(l.dir) {
			var c any
			var address net.Addr
			if listener, err := l.Listen(l.ctx, where[0], where[1]); err == nil {
				c, address = listener, listener.Addr()
				defer listener.Close()
			} else if packets, perr := l.ListenPacket(l.ctx, where[0], where[1]); perr == nil {
				c, address = packets, packets.LocalAddr()
				defer packets.Close()
			} else {
				return fmt.Errorf("%w, %w", err, perr)
			}
			n, err := inode(c)
			if err != nil {
				return err
			}
			l.say("has:", where[0], where[1], address, n)
		}
		return nil
	}
}

// everywhere returns addresses of all kinds, some of them more than once.
func everywhere(dir string) (all [][2]string) {
	for _, network := range []string{"tcp", "tcp4", "udp", "udp4"} {
		all = append(all, [2]string{network, "127.0.0.1:0"}, [2]string{network, "127.0.0.1:0"}, [2]string{network, ":0"})
	}
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		all = append(all, [2]string{network, dir + "/" + network}, [2]string{network, ""}, [2]string{network, ""},
			[2]string{network, "@" + dir + network})
	}
	return all
}

// TestHandsOverEverySocket has sockets of all kinds, those without a name of their own, too, be the same ones in the
// same order, generation after generation, and the files of Unix sockets stay until the last has ended.
func TestHandsOverEverySocket(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "sockets", how)
		first := r.said(0, "has:")
		if want := len(everywhere(r.dir)); len(first) != want {
			t.Fatalf("there are %d sockets, want %d", len(first), want)
		}
		for i := range 3 {
			line := r.replace(i + 1)
			if again := r.said(line, "has:"); !slices.Equal(again, first) {
				t.Errorf("the sockets were\n%q\nand are\n%q", first, again)
			}
			for _, network := range []string{"unix", "unixpacket", "unixgram"} {
				if _, err := os.Lstat(r.dir + "/" + network); err != nil {
					t.Error(err)
				}
			}
		}
		r.stop()
		for _, network := range []string{"unix", "unixpacket", "unixgram"} {
			if _, err := os.Lstat(r.dir + "/" + network); !os.IsNotExist(err) {
				t.Errorf("the file of a %s socket is left: %v", network, err)
			}
		}
	})
}

func init() {
	scripts["waits"] = func(l *life) error {
		if l.number > 0 {
			short, cancel := context.WithCancel(l.ctx)
			cancel()
			l.say("waited:", l.WaitParent(short))
			go func() { l.say("alone:", l.number, l.WaitParent(l.ctx)) }()
		}
		return nil
	}
}

// TestWaitsForPredecessor has a successor wait for a predecessor that refers to its Upgrader no more.
func TestWaitsForPredecessor(t *testing.T) {
	t.Parallel()
	r := perform(t, "waits", "lingers", "forgets")
	r.hangUp()
	if got, want := r.next("waited:"), context.Canceled.Error(); got != "upgrade: wait for the predecessor: "+want {
		t.Errorf("it waited, with a context that has ended: %q", got)
	}
	r.up(1)
	r.Until("the predecessor drains", program.Patience, func() bool { return len(r.said(0, "draining:")) > 0 })
	time.Sleep(50 * time.Millisecond) // for what should not happen
	if got := r.said(0, "alone:"); len(got) > 0 {
		t.Error("the successor takes its predecessor for ended")
	}
	r.set("forgets", false) // the successor, that is
	r.set("lingers", false)
	if got := r.next("alone:"); got != "1 <nil>" {
		t.Errorf("alone: %q", got)
	}
	r.stop()
}

// TestPredecessorKeepsNothing has a successor end before its predecessor, which must not hold open where it serves no
// more: clients would wait there for ever.
func TestPredecessorKeepsNothing(t *testing.T) {
	t.Parallel()
	r := perform(t, "sockets", "lingers")
	r.hangUp()
	r.up(1)
	address := strings.Fields(r.said(0, "has:")[0])[2]
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.Until("the successor drains", program.Patience, func() bool { return len(r.said(0, "draining:")) == 2 })
	c.SetDeadline(time.Now().Add(program.Patience))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection that waits in the queue: %v", err)
	}
	if c, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v, %v", c, err)
	}
	r.set("lingers", false)
	r.wait()
}
