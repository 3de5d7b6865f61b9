//go:build linux

package pack_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestManager has a program tell a service manager how it is: with a master, in line, and after an upgrade. What a real
// systemd makes of it is tested in examples/deploy/systemd.
func TestManager(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]string{"master": "A=1", "in line": "GOPHERPACK_INLINE=1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := t.TempDir() + "/notify"
			socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			p := start(t, "http", func(c *exec.Cmd) {
				c.Env = append(c.Env, env, "NOTIFY_SOCKET="+address, "WATCHDOG_USEC=4000000")
			}, "-workers=2")
			said := func(line string) []string {
				t.Helper()
				return hear(t, socket, line)
			}
			if lines := said("READY=1"); !slices.ContainsFunc(lines, isServing) {
				t.Errorf("%q; want a status", lines)
			}
			said("WATCHDOG=1")
			if name == "master" {
				p.Signal(syscall.SIGUSR2)
				said("RELOADING=1")
				said("READY=1")
			}
			go p.Stop()
			said("STOPPING=1")
			p.Wait(inTime)
		})
	}
}

func isServing(line string) bool {
	return strings.HasPrefix(line, "STATUS=") && strings.Contains(line, "serve") && strings.Contains(line, "127.0.0.1:")
}

// hear returns the first message with a line.
func hear(t *testing.T, socket *net.UnixConn, line string) []string {
	t.Helper()
	socket.SetReadDeadline(time.Now().Add(inTime))
	for {
		b := make([]byte, 4096)
		n, err := socket.Read(b)
		if err != nil {
			t.Fatalf("it does not say %s: %v", line, err)
		}
		if lines := strings.Split(string(b[:n]), "\n"); slices.Contains(lines, line) {
			return lines
		}
	}
}

// TestPassedSocket starts a program with a socket that it serves, as systemd does. It stays when the program has ended.
func TestPassedSocket(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]string{"master": "A=1", "in line": "GOPHERPACK_INLINE=1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f, err := l.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p := start(t, "http", func(c *exec.Cmd) {
				c.Env, c.ExtraFiles = append(c.Env, env), []*os.File{f}
				inShell(c, "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web")
			}, "-workers=2", "-address=tcp "+l.Addr().String())
			up := map[string]string{"master": "pack is up", "in line": "pack serves in line, in one process"}[name]
			if up := p.Logged(1, up); !strings.Contains(fmt.Sprint(up["listening"]), l.Addr().String()) {
				t.Errorf("it serves %v", up)
			}
			u := apply(t, loadOn("tcp", l.Addr().String(), 4, 50))
			if r := <-u.result; r.Requests != 200 || r.Failed() > 0 {
				t.Errorf("%v", r)
			}
			p.Stop()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}

// TestManagerIsNotTold has a program take back what says that a manager wants to know.
func TestManagerIsNotTold(t *testing.T) {
	t.Parallel()
	address := t.TempDir() + "/notify"
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p := start(t, "unmanaged", func(c *exec.Cmd) { c.Env = append(c.Env, "NOTIFY_SOCKET="+address) })
	p.Addresses()
	p.Stop()
	socket.SetReadDeadline(time.Now())
	b := make([]byte, 4096)
	if n, err := socket.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it says %q, %v", b[:n], err)
	}
}
