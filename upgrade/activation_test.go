//go:build linux

package upgrade_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
)

func init() {
	scripts["activated"] = func(l *life) error {
		given := activated()
		watched := os.Getenv("WATCHDOG_PID")
		l.say("given:", len(given), watched == "" || watched == strconv.Itoa(os.Getpid()), os.Getenv("WATCHDOG_USEC"))
		for _, f := range given {
			if err := l.AddFile("web", f); err != nil {
				return err
			}
			f.Close()
		}
		f, err := l.File("web")
		if f == nil || err != nil {
			return fmt.Errorf("no socket: %w", err)
		}
		defer f.Close()
		listener, err := net.FileListener(f)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
					fmt.Fprint(c, l.number, " ", line)
				}
				c.Close()
			}
		}()
		go func() {
			<-l.Done()
			listener.Close()
		}()
		return nil
	}
}

// activated returns the sockets that systemd has started this process with, as sd_listen_fds(3) does.
func activated() (all []*os.File) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || err != nil {
		return nil
	}
	for fd := 3; fd < 3+n; fd++ {
		syscall.CloseOnExec(fd)
		all = append(all, os.NewFile(uintptr(fd), "listen"))
	}
	return all
}

// TestSocketActivation has servers that are started with sockets hand these on: successors do not take others for them,
// although in place LISTEN_PID is theirs, and the file of a Unix socket stays when the last has ended, since systemd
// made it. The watchdog, if there is one, is for whoever serves.
func TestSocketActivation(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := prepareServer(t, how)
		path := r.dir + "/web"
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		theirs, err := listener.File()
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		r.cmd.ExtraFiles = []*os.File{theirs}
		script := `export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web WATCHDOG_PID=$$ WATCHDOG_USEC=7; exec "$0"`
		r.cmd.Args, r.cmd.Path = []string{"sh", "-c", script, r.cmd.Path}, "/bin/sh"
		r.run(asScript + "=activated " + r.dir)
		if got := r.said(0, "given:"); len(got) != 1 || got[0] != "1 true 7" {
			t.Fatalf("the first program was given: %q", got)
		}
		for i := range 3 {
			if i > 0 {
				line := r.replace(i)
				if got := r.said(line, "given:"); len(got) != 1 || got[0] != "0 true 7" {
					t.Errorf("successor %d was given: %q", i, got)
				}
			}
			for want := strconv.Itoa(i); ; { // the predecessor may accept one more
				got, err := ask("unix", path)
				if err != nil {
					t.Error(err)
				}
				if err != nil || got == want {
					break
				}
			}
		}
		r.stop()
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			t.Error("the file of systemd's socket was removed")
		}
	})
}
