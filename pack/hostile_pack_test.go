//go:build linux

package pack_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/program"
)

// attacked is a pack of which one worker is hostile.
type attacked struct {
	*running
	t                *testing.T
	network, address string
	dir              string // with orders, and what the master can reach and the worker cannot
	siblings         func() error
	before           program.Upkeep
	cpu              time.Duration // of the master, before
	swaps            bool          // the file of the Unix socket is being swapped
}

const hostileShutdown = 3 * time.Second

// asHostile returns what has workers run as somebody else than the master, if that can be.
func asHostile(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		return func(*exec.Cmd) {}
	}
	asOther := asNobody(t)
	return func(c *exec.Cmd) {
		asOther(c) // for where it is
		c.SysProcAttr = nil
		c.Args = append(c.Args, "-user=65534:65534")
	}
}

func startHostile(t *testing.T, as func(*exec.Cmd), network ...string) *attacked {
	t.Helper()
	dir := dirForAll(t)
	err := errors.Join(os.Mkdir(dir+"/secret", 0o700), os.Mkdir(dir+"/open", 0o700), os.Chmod(dir+"/open", 0o777))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		"-workers=3", "-generations=20", "-shutdown=" + hostileShutdown.String(), "-hangtimeout=3s", "-orders=" + dir,
		"-norebalance", // its siblings' clients would come to it
	}
	a := &attacked{t: t, network: "tcp", dir: dir}
	if len(network) > 0 {
		a.network, a.address = "unix", dir+"/open/socket"
		args = append(args, "-address=unix "+a.address, "-unixmode=666")
	}
	a.order("peer", deafPeer(t))
	a.running = start(t, "hostile", as, args...)
	a.Addresses()
	if a.network == "tcp" {
		a.address = a.Address()
	}
	a.siblings = a.inLoop()
	a.before, a.cpu = a.Upkeep(), program.CPUTime(a.PID())
	return a
}

// deafPeer accepts connections and does not read from them. It returns its address.
func deafPeer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// order has the hostile worker attack the next time that it starts or drains.
func (a *attacked) order(when, by string) {
	a.t.Helper()
	err := os.WriteFile(a.dir+"/"+when, []byte(by), 0o644)
	if by == "" {
		err = os.Remove(a.dir + "/" + when)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// attack has the hostile worker attack now.
func (a *attacked) attack(by string) {
	a.t.Helper()
	path := "/attack?by=" + url.QueryEscape(by)
	a.Until("the hostile worker to be met", program.Patience, func() bool {
		c, err := net.Dial(a.network, a.address)
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path)
		answer, _ := io.ReadAll(c)
		return strings.HasSuffix(string(answer), "begun")
	})
}

// killsOne waits until a worker is killed for what it says.
func (a *attacked) killsOne() {
	a.t.Helper()
	a.Until("a worker to be killed", program.Patience, func() bool { return a.breaches() > 0 })
}

// recovers waits until the pack is whole again.
func (a *attacked) recovers() {
	a.t.Helper()
	a.HasWorkers(3)
	a.answer(3, loadOn(a.network, a.address, 8, 10))
}

// nothingOpened fails the test if the master listens where a worker has asked it to.
func (a *attacked) nothingOpened() {
	a.t.Helper()
	for _, port := range []string{"922", "980"} {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			a.t.Errorf("somebody listens on port %s", port)
		}
	}
	if _, err := os.Lstat(a.dir + "/secret/socket"); !errors.Is(err, fs.ErrNotExist) {
		a.t.Errorf("the socket is there, or %v", err)
	}
}

// stops ends the pack, and looks what the attack has cost before.
func (a *attacked) stops() {
	a.t.Helper()
	// Who may put other files in the place of the socket's decides whom its clients meet, and that it is bound anew.
	if err := a.siblings(); err != nil && !a.swaps {
		a.t.Errorf("a client of another worker: %v", err)
	}
	// What drains has descriptors of the master's until it has ended.
	few := func() bool { return a.Upkeep().Descriptors <= a.before.Descriptors+6 }
	if !a.Await(hostileShutdown+5*time.Second, few) {
		a.t.Errorf("before %+v, after %+v", a.before, a.Upkeep())
	}
	after, cpu := a.Upkeep(), program.CPUTime(a.PID())-a.cpu
	a.t.Logf("before %+v, after %+v, the master has used %v", a.before, after, cpu)
	if after.Threads > a.before.Threads+16 || after.Anonymous > a.before.Anonymous+64<<10 || cpu > 5*time.Second {
		a.t.Error("this is too much")
	}
	a.Signal(syscall.SIGTERM)
	// That it had to give up on workers, which takes a second more than it gives them, the status tells.
	if status := a.Wait(hostileShutdown + program.Patience); status != 0 {
		a.t.Errorf("exit status %d, %v", status, a.Err())
	}
}

// inLoop has clients keep connections to the workers that are not hostile, and use them again and again, until the
// function is called that it returns, which returns the first error.
func (a *attacked) inLoop() func() error {
	var readers []*bufio.Reader
	var conns []net.Conn
	for len(conns) < 4 {
		c, err := net.Dial(a.network, a.address)
		if err != nil {
			a.t.Fatal(err)
		}
		r := bufio.NewReader(c)
		body, err := ask(c, r)
		if err != nil {
			a.t.Fatal(err)
		}
		if strings.Contains(body, fmt.Sprintf("id=%d ", hostileID)) {
			c.Close()
			continue
		}
		conns, readers = append(conns, c), append(readers, r)
	}
	end := inLoops(len(conns), func(n int) func(context.Context) error {
		return func(context.Context) error {
			_, err := ask(conns[n], readers[n])
			time.Sleep(5 * time.Millisecond)
			return err
		}
	})
	return func() error {
		err := end()
		for _, c := range conns {
			c.Close()
		}
		return err
	}
}

// breaches returns how many workers were killed for what they said.
func (a *attacked) breaches() (n int) {
	for _, r := range a.Records() {
		if text, _ := r["error"].(string); strings.Contains(text, "it does not keep to the protocol") {
			n++
		}
	}
	return n
}
