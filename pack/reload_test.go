//go:build linux

package pack_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// TestSessionsAreResumed connects again and again, to both workers, and across a reload.
func TestSessionsAreResumed(t *testing.T) {
	t.Parallel()
	p := start(t, "https", nil, "-workers=4")
	config := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	resumed := 0
	const conns = 60
	for i := range conns {
		if i == conns/2 {
			p.Signal(syscall.SIGHUP)
			p.Logged(1, "generation has drained")
		}
		c, err := tls.Dial("tcp", p.Address(), config)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		if c.ConnectionState().DidResume {
			resumed++
		}
		c.Close()
	}
	if resumed != conns-1 {
		t.Errorf("%d of %d sessions were resumed, want all but the first", resumed, conns)
	}
	p.Stop()
}

// TestReloadChangesEveryWorker compares the processes before and after.
func TestReloadChangesEveryWorker(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil)
	before, _ := answers(t, load(p, 16, 20).Run(t.Context()))
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "generation has drained")
	after, _ := answers(t, load(p, 16, 20).Run(t.Context()))
	if len(after) != len(before) {
		t.Errorf("%d workers answer, %d before", len(after), len(before))
	}
	for id, pid := range before {
		if after[id] == pid {
			t.Errorf("worker %d is the old one", id)
		}
		if got := masks(t, after[id]); len(got) != 1 {
			t.Errorf("worker %d has masks %v", id, got)
		}
	}
	if n := len(p.Workers()); n != len(after) {
		t.Errorf("%d processes for %d workers", n, len(after))
	}
	p.Stop()
}

// TestGenerationsAreBounded reloads while requests never end.
func TestGenerationsAreBounded(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-shutdown=1h", "-workers=1", "-generations=3")
	var hanging []*underLoad
	for i := range 5 {
		l := load(p, 1, 1)
		l.Path = "/hang"
		u := apply(t, l)
		u.until(&u.sent, 1)
		hanging = append(hanging, u)
		p.Signal(syscall.SIGHUP)
		p.Logged(i+1, "reloaded")
		p.Until("three workers at most", program.Patience, func() bool { return len(p.Workers()) <= 3 })
	}
	p.Logged(1, "too many generations, killing the oldest") // a request may be accepted by the next generation only
	p.Signal(syscall.SIGTERM)
	p.Logged(1, "stopping")
	p.Signal(syscall.SIGINT)
	p.Wait(inTime)
	for _, u := range hanging {
		u.finish()
	}
}

// TestReloadRunsTheSameExecutable reloads after the executable was removed.
func TestReloadRunsTheSameExecutable(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/program"
	if err := program.CopySelf(path); err != nil {
		t.Fatal(err)
	}
	p := start(t, "http", func(c *exec.Cmd) { c.Path = path })
	p.Address()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloaded")
	if r := load(p, 4, 5).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.Stop()
}

// TestStopRightAfterReload stops a pack while connections are on their way from the old workers to the new.
func TestStopRightAfterReload(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("keeping new connections out needs CAP_NET_ADMIN")
	}
	for range test.Times(2, 10) {
		p := start(t, "http", nil, "-workers=2")
		u := apply(t, load(p, 16, 0))
		u.until(&u.answered, 100)
		p.Signal(syscall.SIGHUP)
		p.Logged(1, "reloaded")
		p.Stop()
		comeTooLate(t, u)
		if n := p.Count("a connection was lost that a worker handed over: no worker could take it"); n > 0 {
			t.Errorf("%d connections were lost", n)
		}
	}
}

// TestRequestAfterALongOne has a request that began before a reload, and takes longer than DrainDelay, end. Its
// response could not tell the client to close, so the next request on that connection must be answered, too.
func TestRequestAfterALongOne(t *testing.T) {
	t.Parallel()
	p := start(t, "https", nil, "-drain=1s")
	c, err := tls.Dial("tcp", p.Address(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	send := func(path string) {
		t.Helper()
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
	}
	answer := func() *http.Response {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	send("/long")
	long := answer()
	body := bufio.NewReader(long.Body)
	if line, err := body.ReadString('\n'); line != "begun\n" || long.Close || err != nil {
		t.Fatalf("%q, %v, and the connection is to be closed: %v", line, err, long.Close)
	}
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloaded")
	if rest, err := io.ReadAll(body); string(rest) != "ended\n" || err != nil {
		t.Fatalf("%q, %v", rest, err)
	}
	time.Sleep(100 * time.Millisecond) // the client thinks
	send("/proto")
	last := answer()
	if text, err := io.ReadAll(last.Body); string(text) != "HTTP/1.1" || !last.Close || err != nil {
		t.Errorf("%q, %v, and the connection is to be closed: %v", text, err, last.Close)
	}
	p.Logged(1, "generation has drained")
	p.Stop()
}
