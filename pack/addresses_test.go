//go:build linux

package pack_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

func init() {
	freeBind = func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		})
		return errors.Join(cerr, err)
	}
}

// config is a file that says where a program is to listen.
type config struct {
	t    *testing.T
	name string
}

func newConfig(t *testing.T, lines ...string) config {
	c := config{t, t.TempDir() + "/config"}
	c.set(lines...)
	return c
}

func (c config) set(lines ...string) {
	c.t.Helper()
	if err := os.WriteFile(c.name, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// port returns the port that a program listens on, and the address.
func port(p *running) (port, address string) {
	address = p.Address()
	_, port, _ = net.SplitHostPort(address)
	return port, address
}

// TestAddressWrittenOtherwise changes how addresses are written, in reloads and upgrades: nothing is lost.
func TestAddressWrittenOtherwise(t *testing.T) {
	t.Parallel()
	c := newConfig(t, "tcp 127.0.0.1:0")
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "at", func(c *exec.Cmd) { c.Path, c.Dir = program, dir }, "-config="+c.name, "-workers=2")
	port, _ := port(p)
	keeping, connecting := applyBoth(t, p, 4)
	sock := dir + "/x.sock"
	c.set("tcp localhost:"+port, "unix x.sock")
	p.changes(keeping, syscall.SIGHUP)
	local := apply(t, loadOn("unix", sock, 4, 0))
	for i, lines := range [][]string{
		{"tcp4 127.0.0.1:" + port, "unix ./x.sock"}, {"unix " + sock, "tcp localhost:" + port},
	} {
		local.until(&local.answered, local.answered.Load()+10)
		c.set(lines...)
		p.Signal([]os.Signal{syscall.SIGUSR2, syscall.SIGHUP}[i])
		p.Logged(i+2, "reloaded", "upgraded")
	}
	local.until(&local.answered, local.answered.Load()+10)
	loseNothing(t, keeping, connecting, local)
	if n := p.Count("an address is written otherwise than before, its sockets stay"); n != 5 {
		t.Errorf("it was said %d times that an address is written otherwise", n)
	}
	p.Stop()
	if _, err := os.Lstat(sock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the Unix socket is still there: %v", err)
	}
}

// TestAddressOverlaps changes to addresses that are more and less of the machine.
func TestAddressOverlaps(t *testing.T) {
	t.Parallel()
	c := newConfig(t, "tcp 127.0.0.1:0")
	p := start(t, "at", nil, "-config="+c.name, "-workers=2")
	port, address := port(p)
	u := apply(t, load(p, 4, 0))
	for i, line := range []string{"tcp :" + port, "tcp " + address, "tcp4 :" + port} {
		u.until(&u.answered, u.answered.Load()+10)
		c.set(line)
		p.Signal(syscall.SIGHUP)
		p.Logged(i+1, "reloaded")
		p.Logged(i+1, "generation has drained")
	}
	u.until(&u.answered, u.answered.Load()+10)
	if os.Geteuid() == 0 { // who may keep new connections out of sockets that are about to be closed
		loseNothing(t, u)
	}
	c.set("tcp :"+port, "tcp6 [::]:"+port)
	p.Signal(syscall.SIGHUP)
	why := p.Logged(1, "reload failed, the old workers go on")["error"]
	if want := "(this pack listens on tcp [::]:" + port + " already)"; !strings.Contains(fmt.Sprint(why), want) {
		t.Errorf("%v; want %s", why, want)
	}
	p.Stop()
}

// TestAddressOverlapsDuringOnShutdown has the hook of the old workers take its time: they serve what only they have.
func TestAddressOverlapsDuringOnShutdown(t *testing.T) {
	t.Parallel()
	hold := t.TempDir() + "/hold"
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := newConfig(t, "tcp 127.0.0.1:0")
	p := start(t, "at", nil, "-config="+c.name, "-workers=2", "-hold="+hold)
	port, address := port(p)
	before := p.Workers()
	c.set("tcp :" + port)
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloaded")
	r := loadOn("tcp", address, 4, 5).Run(t.Context())
	pids, _ := answers(t, r)
	for _, pid := range pids {
		if !slices.Contains(before, pid) {
			t.Errorf("a new worker answers already: %v", pids)
		}
	}
	if r.Failed() > 0 || len(pids) == 0 {
		t.Errorf("%v by %v", r, pids)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	p.Logged(1, "generation has drained")
	if r := loadOn("tcp", address, 4, 5).Run(t.Context()); r.Failed() > resetAsNew(r) { // the master is about to close
		t.Errorf("%v", r)
	}
	p.Stop()
}

// TestStartedAgainAtOnce kills the master, and starts the pack anew while the workers that it had are still there.
func TestStartedAgainAtOnce(t *testing.T) {
	t.Parallel()
	hold := t.TempDir() + "/hold"
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sock := t.TempDir() + "/x.sock"
	c := newConfig(t, "tcp 127.0.0.1:0", "unix "+sock)
	p := start(t, "at", nil, "-config="+c.name, "-workers=2", "-hold="+hold)
	addresses := p.Addresses()
	_, address, _ := strings.Cut(addresses[0], " ")
	c.set("tcp "+address, "unix "+sock)
	workers := p.Workers()
	slow := loadOn("tcp", address, 2, 1)
	slow.Path = "/slow"
	u := apply(t, slow)
	u.until(&u.sent, 2)
	p.Signal(syscall.SIGKILL)
	again := start(t, "at", nil, "-config="+c.name, "-workers=2")
	again.Addresses()
	if now := p.Workers(); len(now) != len(workers) {
		t.Errorf("of the workers before, %v are left; want %v", now, workers)
	}
	for _, l := range []strictclient.Load{loadOn("tcp", address, 4, 5), loadOn("unix", sock, 4, 5)} {
		r := l.Run(t.Context())
		pids, _ := answers(t, r)
		for _, pid := range pids {
			if slices.Contains(workers, pid) {
				t.Errorf("a worker without a master answers on %s", l.Address)
			}
		}
		if r.Failed() > 0 {
			t.Errorf("%s: %v", l.Address, r)
		}
	}
	if r := <-u.result; r.Failed() > 0 {
		t.Errorf("what was being served: %v", r)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	p.NoneLeft()
	again.Stop()
}

// TestOrphanThatStays has a worker without a master hold an address: a start waits, and says for whom.
func TestOrphanThatStays(t *testing.T) {
	t.Parallel()
	orphan := start(t, "squatter", func(c *exec.Cmd) { c.Env = append(c.Env, "PROCGROUP_LIFELINE=3,1") })
	_, address := orphan.Listening("listening")
	p := start(t, "http", nil, "-workers=2", "-address=tcp "+address)
	waits := p.Logged(1, "waiting for an address on which workers listen whose master is gone")
	if got := fmt.Sprint(waits["pids"]); got != fmt.Sprintf("[%d]", orphan.PID()) {
		t.Errorf("it waits for %s, want %d", got, orphan.PID())
	}
	orphan.Signal(syscall.SIGKILL)
	p.Addresses()
	p.Stop()
}

// TestSecondInstance is refused, and told who listens.
func TestSecondInstance(t *testing.T) {
	t.Parallel()
	c := newConfig(t, "tcp 127.0.0.1:0")
	p := start(t, "at", nil, "-config="+c.name, "-workers=1")
	_, address := port(p)
	c.set("tcp " + address)
	again := start(t, "at", nil, "-config="+c.name, "-workers=1")
	if status := again.Wait(inTime); status != 1 || !again.Said("(is another instance running? processes ") ||
		again.Count("waiting for an address on which workers listen whose master is gone") > 0 {
		t.Errorf("exit status %d", status)
	}
	p.Stop()
}

// TestUnixSocketLost has the file of a Unix socket disappear: signals that replace workers, and the one that asks how
// the pack is, bind it anew. Connections that were accepted, and such that are queued, are served.
func TestUnixSocketLost(t *testing.T) {
	t.Parallel()
	sock := t.TempDir() + "/x.sock"
	c := newConfig(t, "unix "+sock)
	p := start(t, "at", nil, "-config="+c.name, "-workers=2")
	p.Addresses()
	for i, s := range []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		slow := loadOn("unix", sock, 2, 1)
		slow.Path = "/slow"
		u := apply(t, slow)
		u.until(&u.sent, 2)
		if err := os.Remove(sock); err != nil {
			t.Fatal(err)
		}
		p.Signal(s)
		p.Logged(i+1, "the file of a Unix socket is gone, or is another's: it is bound anew, for new workers")
		p.Logged(i+1, "reloaded", "upgraded")
		if r := loadOn("unix", sock, 4, 5).Run(t.Context()); r.Failed() > 0 {
			t.Errorf("%v: %v", s, r)
		}
		if r := <-u.result; r.Failed() > 0 {
			t.Errorf("%v: what was being served: %v", s, r)
		}
	}
	p.Stop()
	if _, err := os.Lstat(sock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the Unix socket is still there: %v", err)
	}
}

// TestOtherAddressInEachWorker says what to do about it, whichever way the workers differ.
func TestOtherAddressInEachWorker(t *testing.T) {
	t.Parallel()
	c := newConfig(t, "tcp 127.0.0.1:0", "tcp 127.0.ID.1:0")
	p := start(t, "at", nil, "-config="+c.name, "-workers=2")
	why := fmt.Sprint(p.Logged(1, "worker failed")["error"])
	if !strings.Contains(why, "listen tcp 127.0.1.1:0: ") || !strings.Contains(why, "HandleOwn") {
		t.Errorf("%v", why)
	}
	p.Signal(syscall.SIGTERM)
	p.Wait(inTime)
}

// TestAddressOfTheMasterOnly closes an address that no worker serves, and says so.
func TestAddressOfTheMasterOnly(t *testing.T) {
	t.Parallel()
	c := newConfig(t, "tcp 127.0.0.1:0")
	p := start(t, "at", nil, "-config="+c.name, "-workers=2", "-master=127.0.0.2:0")
	if all := p.Addresses(); len(all) != 1 {
		t.Errorf("it listens on %v", all)
	}
	if n := p.Count("no worker serves an address that the master was told of, it is closed: " +
		"call Handle for it in the workers, too"); n != 1 {
		t.Errorf("it says so %d times", n)
	}
	p.Stop()
}

// TestHandleOwn asks each worker at its own address, while workers are killed, replaced and become more.
func TestHandleOwn(t *testing.T) {
	t.Parallel()
	c := newConfig(t, "own tcp localhost:0", "tcp 127.0.0.1:0")
	p := start(t, "at", nil, "-config="+c.name, "-workers=2")
	var own []string
	find := func(listening any) {
		t.Helper()
		for _, a := range listening.([]any) {
			if text := a.(string); strings.Contains(text, ", ") {
				own = strings.Split(strings.TrimPrefix(text, "tcp "), ", ")
			}
		}
	}
	find(p.Logged(1, "pack is up")["listening"])
	all := func(when string, n int) (pids []int) {
		t.Helper()
		if len(own) != n {
			t.Fatalf("%s: addresses %q", when, own)
		}
		for id, address := range own {
			r := loadOn("tcp", address, 2, 5).Run(t.Context())
			by, _ := answers(t, r)
			if len(by) != 1 || by[id] == 0 || r.Failed() > 0 {
				t.Errorf("%s: at the address of worker %d: %v by %v", when, id, r, by)
			}
			pids = append(pids, by[id])
		}
		return pids
	}
	before := all("at first", 2)
	syscall.Kill(before[0], syscall.SIGKILL)
	now := all("after a crash", 2) // whoever connects meanwhile waits
	if now[0] == before[0] || now[1] != before[1] {
		t.Errorf("workers %v, before %v", now, before)
	}
	for i, s := range []os.Signal{syscall.SIGHUP, syscall.SIGUSR2} {
		p.Signal(s)
		p.Logged(i+1, "reloaded", "upgraded")
		p.Logged(i+1, "generation has drained")
		if after := all(fmt.Sprint(s), 2); after[0] == now[0] {
			t.Errorf("%v: worker 0 is still %d", s, after[0])
		}
	}
	p.Signal(syscall.SIGTTIN)
	p.Logged(1, "number of workers changed")
	p.Signal(syscall.SIGUSR1)
	find(p.Logged(1, "state of the pack")["listening"])
	p.Logged(3, "generation has drained")
	all("with one more", 3)
	p.Signal(syscall.SIGTTOU)
	p.Logged(2, "number of workers changed")
	own = own[:2]
	p.Logged(4, "generation has drained")
	all("with one fewer", 2)
	p.Stop()
}

// TestWrappedListener reloads under clients of servers of each kind whose listeners are wrapped.
func TestWrappedListener(t *testing.T) {
	t.Parallel()
	c := config{t, t.TempDir() + "/bare"}
	p := start(t, "wrapped", nil, "-config="+c.name, "-workers=2", "-drain=2s")
	dial := func(i int) (net.Conn, error) {
		_, address, _ := strings.Cut(p.Addresses()[i], " ")
		c, err := net.Dial("tcp", address)
		if err == nil {
			_, err = io.WriteString(c, greeting)
		}
		return c, err
	}
	find := map[string]int{}
	for i := range p.Addresses() {
		find[kindOf(t, dial, i)] = i
	}
	if len(find) != 3 { // two serve plain HTTP
		t.Fatalf("there are servers of kinds %v", find)
	}
	client := func(i int, secure bool, exchange func(net.Conn, *bufio.Reader) (again bool, err error)) func() error {
		return func() error {
			c, err := dial(i)
			if err != nil {
				return err
			}
			defer c.Close()
			if secure {
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			}
			c.SetDeadline(time.Now().Add(inTime))
			r := bufio.NewReader(c)
			for range 20 {
				again, err := exchange(c, r)
				if err != nil || !again {
					return err
				}
				time.Sleep(5 * time.Millisecond)
			}
			return nil
		}
	}
	var clients []func() error
	for i := range p.Addresses() {
		exchange, secure := askOnce, i == find["tls"]
		if i == find["echo"] {
			exchange = echoLine
		}
		clients = append(clients, client(i, secure, exchange), client(i, secure, exchange))
	}
	end := inLoops(len(clients), func(n int) func(context.Context) error {
		return func(context.Context) error { return clients[n]() }
	})
	for i, s := range []os.Signal{syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGHUP} {
		p.Signal(s)
		p.Logged(i+1, "reloaded", "upgraded")
	}
	p.Logged(3, "generation has drained")
	if err := end(); err != nil {
		t.Error(err)
	}
	p.Stop()
}

// TestWrappedAfterwards has a reload wrap listeners that were not: connections that are kept stay open.
func TestWrappedAfterwards(t *testing.T) {
	t.Parallel()
	bare := t.TempDir() + "/bare"
	if err := os.WriteFile(bare, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "wrapped", nil, "-config="+bare, "-workers=2")
	dial := func(i int) (net.Conn, error) {
		_, address, _ := strings.Cut(p.Addresses()[i], " ")
		return net.Dial("tcp", address)
	}
	var all []*underLoad
	for i, a := range p.Addresses() {
		if _, address, _ := strings.Cut(a, " "); kindOf(t, dial, i) == "http" && strings.HasPrefix(a, "tcp ") {
			l := loadOn("tcp", address, 4, 0)
			l.KeepAlive, l.Pause = true, 5*time.Millisecond
			all = append(all, apply(t, l))
		}
	}
	all[0].until(&all[0].answered, 20)
	if err := os.Remove(bare); err != nil {
		t.Fatal(err)
	}
	p.changes(all[0], syscall.SIGHUP, syscall.SIGUSR2)
	all[0].until(&all[0].answered, all[0].answered.Load()+20)
	loseNothing(t, all[:1]...)
	p.Stop()
}

// kindOf finds out what a server behind a wrapped listener is.
func kindOf(t *testing.T, dial func(int) (net.Conn, error), i int) string {
	t.Helper()
	c, err := dial(i)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(inTime))
	io.WriteString(c, "GET /proto HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	line, _ := bufio.NewReader(c).ReadString('\n')
	switch {
	case strings.HasPrefix(line, "HTTP/1.1 200"):
		return "http"
	case strings.HasPrefix(line, "GET"):
		return "echo"
	}
	return "tls"
}

// askOnce sends a request, and reports whether another can follow.
func askOnce(c net.Conn, r *bufio.Reader) (again bool, err error) {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return !resp.Close, err
}

func echoLine(c net.Conn, r *bufio.Reader) (again bool, err error) {
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return false, err
	}
	_, err = r.ReadString('\n')
	return false, err
}

// TestControl binds to an address that this machine does not have.
func TestControl(t *testing.T) {
	t.Parallel()
	c := newConfig(t, "tcp 192.0.2.1:0")
	p := start(t, "at", nil, "-config="+c.name, "-workers=2", "-freebind")
	if address := p.Address(); !strings.HasPrefix(address, "192.0.2.1:") {
		t.Errorf("it listens on %s", address)
	}
	p.Signal(syscall.SIGTTIN)
	p.Logged(1, "number of workers changed")
	p.Stop()
}
