//go:build linux

package pack_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/pack"
)

func init() { programs["terminal"] = terminalProgram }

// terminalProgram reads from its terminal, in the master, or writes to it, in the master and in its workers, as
// -does says.
func terminalProgram() error {
	c, address := configFlags()
	does := flag.String("does", "", "")
	flag.Parse()
	write := func(who string) error {
		tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
		if err == nil {
			defer tty.Close()
			_, err = fmt.Fprintln(tty, who, "writes")
		}
		return err
	}
	c.OnStart = func(context.Context) error {
		if *does == "reads" {
			go io.Copy(io.Discard, os.Stdin)
		}
		if *does == "writes" {
			return write("master")
		}
		return nil
	}
	c.OnWorkerStart = func(context.Context) error {
		if id, _ := pack.WorkerID(); *does == "writes" {
			return write(fmt.Sprint("worker ", id))
		}
		return nil
	}
	return serve(c, *address, &http.Server{Handler: handler()})
}

// newTerminal returns a terminal, and what controls it.
func newTerminal(t *testing.T) (controller, tty *os.File) {
	t.Helper()
	controller, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err) // such as in a sandbox without devpts
	}
	t.Cleanup(func() { controller.Close() })
	fd := int(controller.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { tty.Close() })
	return controller, tty
}

// within has a program start in a session of its own, whose controlling terminal is tty.
func within(tty *os.File, script string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		c.Stdin = tty
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		inShell(c, script)
	}
}

// TestTerminalCloses closes the terminal in which a pack was started: it stops, as any other program, unless nohup has
// started it. HUP that is sent otherwise reloads.
func TestTerminalCloses(t *testing.T) {
	t.Parallel()
	for _, nohup := range []bool{false, true} {
		t.Run(fmt.Sprintf("nohup %v", nohup), func(t *testing.T) {
			t.Parallel()
			controller, tty := newTerminal(t)
			p := start(t, "terminal", within(tty, map[bool]string{false: "true", true: "trap '' HUP"}[nohup]))
			p.Addresses()
			p.Signal(syscall.SIGHUP)
			p.Logged(1, "reloaded")
			if nohup { // also after an upgrade
				p.Signal(syscall.SIGUSR2)
				p.Logged(1, "upgraded")
			}
			p.Logged(1, "generation has drained")
			l := load(p, 4, 1)
			l.Path = "/slow"
			u := apply(t, l)
			u.until(&u.sent, 4)
			tty.Close()
			controller.Close()
			if nohup {
				if r := u.finish(); r.Failed() > 0 { // by then the kernel has told
					t.Errorf("%v", r)
				}
				time.Sleep(1100 * time.Millisecond) // until HUP is a command again
				p.Signal(syscall.SIGHUP)
				p.Logged(2, "reloaded")
				if p.Count("stopping") > 0 || p.Count("reloading") > 2 {
					t.Error("the end of the terminal was something to it")
				}
				p.Stop()
				return
			}
			if stopping := p.Logged(1, "stopping"); stopping["reason"] != "the terminal was closed" {
				t.Errorf("%v", stopping)
			}
			if status := p.Wait(inTime); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if r := u.finish(); r.Failed() > 0 {
				t.Errorf("%v", r)
			}
		})
	}
}

// TestOnTerminal has a pack in the foreground of a terminal: there, the signals are the operator's.
func TestOnTerminal(t *testing.T) {
	t.Parallel()
	_, tty := newTerminal(t)
	p := start(t, "terminal", within(tty, "true"), "-workers=2", "-does=writes")
	p.Addresses()
	p.Signal(syscall.SIGTTIN)
	if r := p.Logged(1, "number of workers changed"); r["workers"] != 3.0 {
		t.Errorf("%v", r)
	}
	p.Stop()
}

// TestInBackground has a pack read from its terminal, or write to it, in the background. What the terminal says of that
// is no wish for more workers, or fewer.
func TestInBackground(t *testing.T) {
	t.Parallel()
	for _, does := range []string{"reads", "writes"} {
		t.Run(does, func(t *testing.T) {
			t.Parallel()
			controller, tty := newTerminal(t)
			settings, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			settings.Lflag |= unix.TOSTOP
			if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, settings); err != nil {
				t.Fatal(err)
			}
			const inBackground = `set -m; "$0" "$@" & wait $!`
			p := start(t, "terminal", func(c *exec.Cmd) {
				within(tty, "true")(c)
				c.Args[2] = inBackground
			}, "-workers=2", "-does="+does)
			pid := int(p.Logged(1, "pack is up")["pid"].(float64))
			tell := func(s syscall.Signal) {
				if err := syscall.Kill(pid, s); err != nil {
					t.Fatal(err)
				}
			}
			p.Logged(1, "in the background of a terminal")
			tell(syscall.SIGHUP)
			p.Logged(1, "reloaded")
			if p.Count("changing the number of workers") > 0 || p.Count("worker failed") > 0 {
				t.Error("the terminal's signals were taken for others")
			}
			if does == "writes" {
				said := bufio.NewScanner(controller)
				for _, want := range []string{"master writes", "worker 0 writes", "worker 1 writes"} {
					if !said.Scan() || strings.TrimSpace(said.Text()) != want {
						t.Errorf("%q, %v; want %q", said.Text(), said.Err(), want)
					}
				}
			}
			tell(syscall.SIGTERM)
			p.Wait(inTime)
		})
	}
}
