//go:build linux

package pack_test

import (
	"net"
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
