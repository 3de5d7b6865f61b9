//go:build linux

package pack_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// underLoad is a load that is being applied.
type underLoad struct {
	t              *testing.T
	load           strictclient.Load
	sent, answered atomic.Int64
	end            context.CancelFunc
	result         chan *strictclient.Result
}

// apply begins a load.
func apply(t *testing.T, l strictclient.Load) *underLoad {
	ctx, cancel := context.WithCancel(t.Context())
	u := &underLoad{t: t, load: l, end: cancel, result: make(chan *strictclient.Result, 1)}
	l.Sent, l.Answered = &u.sent, &u.answered
	go func() { u.result <- l.Run(ctx) }()
	t.Cleanup(cancel)
	return u
}

// until waits until a counter has reached n.
func (u *underLoad) until(counter *atomic.Int64, n int64) {
	u.t.Helper()
	for deadline := time.Now().Add(program.Patience); counter.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			u.t.Fatalf("%d requests sent, %d answered; want %d", u.sent.Load(), u.answered.Load(), n)
		}
	}
}

// finish ends the load, unless it ends by itself, and returns what came of it.
func (u *underLoad) finish() *strictclient.Result {
	u.end()
	return <-u.result
}

// loseNothing ends loads. No request may have failed, and who keeps a connection, without TLS, must have had only one.
func loseNothing(t *testing.T, loads ...*underLoad) {
	t.Helper()
	lose(t, func(*strictclient.Result) int { return 0 }, loads...)
}

// loseLittle is loseNothing while workers become fewer: one or two requests may fail that the kernel may reset.
func loseLittle(t *testing.T, loads ...*underLoad) {
	t.Helper()
	lose(t, func(r *strictclient.Result) int {
		if n := resetAsNew(r); n <= 2 {
			return n
		}
		return 0
	}, loads...)
}

// lose ends loads, of which so many requests may have failed at most.
func lose(t *testing.T, atMost func(*strictclient.Result) int, loads ...*underLoad) {
	t.Helper()
	for _, u := range loads {
		r := u.finish()
		t.Log(r)
		keeps := u.load.KeepAlive && u.load.TLS == nil
		if r.Requests == 0 || r.Failed() > atMost(r) || keeps && r.Conns != u.load.Clients {
			t.Errorf("%d clients: %v, %v", u.load.Clients, r, r.Samples[:min(3, len(r.Samples))])
		}
	}
}

// comeTooLate ends loads of a pack that has stopped. All that failed must have been refused, since nobody listened any
// more.
func comeTooLate(t *testing.T, loads ...*underLoad) {
	t.Helper()
	for _, u := range loads {
		r := u.finish()
		reset := 0
		if u.load.Network != "unix" {
			reset = resetAsNew(r)
		}
		const late = "connect: connection refused"
		if r.Requests == 0 || r.Failed() != r.Failures[late]+reset {
			t.Errorf("%v; want no failure but %q", r, late)
		}
	}
}

// resetAsNew returns how many connections were reset while they were new, if this user may not keep new ones out, which
// takes CAP_NET_ADMIN (README, Limits).
func resetAsNew(r *strictclient.Result) (n int) {
	if os.Geteuid() == 0 {
		return 0
	}
	for _, stage := range []string{"connect", "new connection, write", "new connection, response"} {
		n += r.Failures[stage+": "+syscall.ECONNRESET.Error()] + r.Failures[stage+": "+syscall.EPIPE.Error()]
	}
	return n
}

// load is a load of clients that connect for each request: for so many each or, if that is 0, until it is ended.
func load(p *running, clients, perClient int) strictclient.Load {
	return loadOn("tcp", p.Address(), clients, perClient)
}

// applyBoth begins a load of so many clients that keep their connections, and one of as many that connect for each
// request.
func applyBoth(t *testing.T, p *running, clients int) (keeping, connecting *underLoad) {
	t.Helper()
	kept := load(p, clients, 0)
	kept.KeepAlive, kept.Pause = true, 5*time.Millisecond
	return apply(t, kept), apply(t, load(p, clients, 0))
}

func loadOn(network, address string, clients, perClient int) strictclient.Load {
	l := strictclient.Load{Network: network, Address: address, Clients: clients, PerClient: perClient}
	if perClient == 0 {
		l.Pause = pause()
	}
	return l
}

// pause returns for how long a client pauses between two requests: else the processors would be the loads', and other
// tests would wait for them.
func pause() time.Duration {
	if test.Full() {
		return 0
	}
	return 5 * time.Millisecond
}

// answers reads what the workers say of themselves: their PIDs by ID.
func answers(t testing.TB, r *strictclient.Result) (pids map[int]int, said []string) {
	t.Helper()
	pids = map[int]int{}
	for body := range r.Bodies {
		var id, pid int
		if n, err := fmt.Sscanf(body, "id=%d pid=%d", &id, &pid); n != 2 {
			t.Fatalf("answer %q: %v", body, err)
		}
		pids[id] = pid
		said = append(said, body)
	}
	return pids, said
}

// answer waits until n workers answer a load, which ends by itself.
func (p *running) answer(n int, l strictclient.Load) {
	p.t.Helper()
	p.Until(fmt.Sprintf("%d workers to answer", n), program.Patience, func() bool {
		pids, _ := answers(p.t, l.Run(p.t.Context()))
		return len(pids) == n
	})
}

// get sends a request on a connection of its own, and returns the body of the answer.
func get(t *testing.T, p *running, path string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + p.Address() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || err != nil {
		t.Fatalf("%s: %s, %q, %v", path, resp.Status, body, err)
	}
	return string(body)
}

// getWithin sends a request on a connection of its own, and returns the answer, or what came of it in time.
func getWithin(address string, limit time.Duration) (answer string, err error) {
	c, err := net.DialTimeout("tcp", address, limit)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	text, err := io.ReadAll(c)
	return string(text), err
}

// answersWithin reports whether a request on a new connection is answered in time.
func answersWithin(address string, limit time.Duration) bool {
	answer, _ := getWithin(address, limit)
	return strings.HasPrefix(answer, "HTTP/1.1 200")
}

// occupy has a handler keep a worker from its work until the connection is closed, and returns which worker it is. The
// handler says so before it begins.
func occupy(t testing.TB, p *running, path string) (pid int, conn net.Conn) {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanf(resp.Body, "pid=%d", &pid); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return pid, conn
}

// ask sends a request on a connection that is kept.
func ask(c net.Conn, r *bufio.Reader) (body string, err error) {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	return string(text), err
}

// mixed returns n signals to reload and as many to upgrade, by turns.
func mixed(n int) []syscall.Signal {
	return slices.Repeat([]syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2}, n)
}

// changes sends signals, each when the load has made some progress, and waits for what they lead to.
func (p *running) changes(u *underLoad, signals ...syscall.Signal) {
	p.t.Helper()
	for i, s := range signals {
		u.until(&u.answered, u.answered.Load()+10)
		p.Signal(s)
		p.Logged(i+1, "reloaded", "upgraded")
	}
}

// inLoops runs n clients, each of which does the same again and again, until end is called, which returns the first
// error. Between two times they pause for as long as those of a load.
func inLoops(n int, client func(n int) func(context.Context) error) (end func() error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	var clients sync.WaitGroup
	for i := range n {
		do := client(i)
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := do(ctx); err != nil {
					cancel(err)
				}
				time.Sleep(pause())
			}
		})
	}
	return func() error {
		cancel(nil)
		clients.Wait()
		if err := context.Cause(ctx); err != context.Canceled {
			return err
		}
		return nil
	}
}

func echoOnce(address, line string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != line {
		return fmt.Errorf("%q, %w; want %q", got, err, line)
	}
	return nil
}
