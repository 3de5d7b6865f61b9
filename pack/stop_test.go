//go:build linux

package pack_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// TestStopAnswersWhatIsUnderWay stops a pack under a load of 2-second requests, on new and kept-alive connections.
func TestStopAnswersWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			p := start(t, "http", nil)
			const clients = 40
			slow := load(p, clients, 1)
			slow.Path, slow.KeepAlive = "/slow", s == syscall.SIGINT
			u := apply(t, slow)
			u.until(&u.sent, clients)
			p.signal(s)
			r := u.finish()
			if r.Requests != clients || r.Bodies["slow"] != clients || r.Failed() != 0 {
				t.Errorf("%v; want all %d answered", r, clients)
			}
			if status := p.wait(5 * time.Second); status != 0 {
				t.Errorf("exit status %d", status)
			}
			stopped := p.logged(1, "stopped")
			if stopped["cut"] != 0.0 {
				t.Errorf("%v", stopped)
			}
		})
	}
}

// underLoad is a load that is being applied.
type underLoad struct {
	t              *testing.T
	sent, answered atomic.Int64
	end            context.CancelFunc
	result         chan *strictclient.Result
}

// apply begins a load.
func apply(t *testing.T, l strictclient.Load) *underLoad {
	ctx, cancel := context.WithCancel(t.Context())
	u := &underLoad{t: t, end: cancel, result: make(chan *strictclient.Result, 1)}
	l.Sent, l.Answered = &u.sent, &u.answered
	go func() { u.result <- l.Run(ctx) }()
	t.Cleanup(cancel)
	return u
}

// until waits until a counter has reached n.
func (u *underLoad) until(counter *atomic.Int64, n int64) {
	u.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); counter.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			u.t.Fatalf("%d requests sent, %d answered in 20s; want %d", u.sent.Load(), u.answered.Load(), n)
		}
	}
}

// finish ends the load, unless it ends by itself, and returns what came of it.
func (u *underLoad) finish() *strictclient.Result {
	u.end()
	return <-u.result
}

// TestStopUnderNewConnections stops a pack while clients connect as fast as they can. Whoever the kernel accepted
// gets an answer; who comes too late is refused, and nobody is reset.
func TestStopUnderNewConnections(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("keeping new connections out needs CAP_NET_ADMIN")
	}
	t.Parallel()
	for range 5 {
		p := start(t, "http", nil)
		u := apply(t, load(p, 16, 0))
		u.until(&u.answered, 500)
		p.stop()
		r := u.finish()
		const late = "connect: connection refused"
		if refused := r.Failures[late]; r.Requests == 0 || r.Failed() != refused {
			t.Errorf("%v; want no failure but %q", r, late)
		}
	}
}

func TestHangingHandlerIsCut(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-shutdown=2s")
	hanging := load(p, 3, 1)
	hanging.Path = "/hang"
	u := apply(t, hanging)
	u.until(&u.sent, 3)
	begun := time.Now()
	p.signal(syscall.SIGTERM)
	if status := p.wait(10 * time.Second); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if took := time.Since(begun); took > 2*time.Second+500*time.Millisecond { // the rest is this test's own waiting
		t.Errorf("the stop took %v of 2s", took)
	}
	if r := u.finish(); r.Failed() != 3 {
		t.Errorf("%v", r)
	}
	if stopped := p.logged(1, "stopped"); stopped["cut"] != 3.0 {
		t.Errorf("the log does not tell of 3 cut connections: %v", stopped)
	}
}

func TestSecondSignalKills(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-shutdown=1h")
	hanging := load(p, 1, 1)
	hanging.Path = "/hang"
	u := apply(t, hanging)
	u.until(&u.sent, 1)
	p.signal(syscall.SIGTERM)
	p.logged(1, "stopping")
	p.signal(syscall.SIGTERM)
	if status := p.wait(10 * time.Second); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	if !p.said("stopped by force") {
		t.Error("the log does not say that it was forced")
	}
	u.finish()
}

// TestIdleConnectionsAreToldToClose has clients that pause between requests on a connection that they keep.
func TestIdleConnectionsAreToldToClose(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-drain=1s")
	l := load(p, 20, 0)
	l.KeepAlive, l.Pause = true, 20*time.Millisecond
	u := apply(t, l)
	u.until(&u.answered, 20)
	p.stop()
	r := u.finish()
	if refused := r.Failures["connect: connection refused"]; r.Requests < 20 || r.Failed() != refused+resetAsNew(r) {
		t.Errorf("%v; want nobody to lose a kept-alive connection unawares", r)
	}
}

// TestMasterKilled wants workers to finish what they have and to end when the master is killed.
func TestMasterKilled(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil)
	slow := load(p, 20, 1)
	slow.Path = "/slow"
	u := apply(t, slow)
	u.until(&u.sent, 20)
	p.signal(syscall.SIGKILL)
	p.wait(5 * time.Second)
	if r := u.finish(); r.Requests != 20 {
		t.Errorf("%v; want the workers to answer", r)
	}
	p.noneLeft()
}

// TestMasterKilledBesideStopped kills the master while a worker is stopped. The kernel continues it then, since its process group
// has become orphaned (setpgid(2)), if the master was in a session of its own, as every service is.
func TestMasterKilledBesideStopped(t *testing.T) {
	t.Parallel()
	p := start(t, "http", func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }, "-workers=2")
	p.addresses()
	freeze(t, p.workers()[0])
	p.signal(syscall.SIGKILL)
	p.wait(5 * time.Second)
	p.noneLeft()
}

// TestMasterKilledBesideHung kills the master, and the workers' own hooks do not let them end.
func TestMasterKilledBesideHung(t *testing.T) {
	t.Parallel()
	p := start(t, "hooks", nil, "-workers=2", "-pause=1h", "-shutdown=1s")
	p.addresses()
	p.signal(syscall.SIGKILL)
	p.wait(5 * time.Second)
	p.noneLeft()
	p.until("the end of the log", 5*time.Second, func() bool { return p.silent })
	if n := p.count("the master is gone, and this worker has not ended in time: exiting"); n != 2 {
		t.Errorf("%d workers said that they exit", n)
	}
}

// TestWorkerIsAskedToStop sends TERM to one worker: it drains, another takes its place, nobody notices.
func TestWorkerIsAskedToStop(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil)
	u := apply(t, load(p, 8, 0))
	u.until(&u.answered, 100)
	for i := range 5 {
		pid := p.workers()[0]
		syscall.Kill(pid, syscall.SIGTERM)
		p.logged(i+1, "worker ready")
	}
	if r := u.finish(); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.stop()
}

// TestSignalsForTheMaster sends workers what operators send to every process of the program.
func TestSignalsForTheMaster(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil)
	p.address()
	for _, pid := range p.workers() {
		for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU} {
			if err := syscall.Kill(pid, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r := load(p, 4, 10).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.stop()
	if n := p.count("worker failed"); n != 0 {
		t.Errorf("%d workers died of a signal that was not theirs", n)
	}
}

// freeze stops a process and waits until every thread of it has stopped.
func freeze(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		running := slices.ContainsFunc(threads, func(name string) bool {
			text, err := os.ReadFile(name)
			return err == nil && !strings.Contains(string(text), ") T ")
		})
		if len(threads) > 0 && !running {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// TestKilledWorkerLosesNoQueuedConnection stops a worker, so that connections queue on its socket, then kills it.
func TestKilledWorkerLosesNoQueuedConnection(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2")
	p.address()
	victim := p.workers()[0]
	freeze(t, victim)
	const clients = 60
	u := apply(t, load(p, clients, 1))
	u.until(&u.sent, clients) // some wait in the queue of the stopped worker
	syscall.Kill(victim, syscall.SIGKILL)
	if r := <-u.result; r.Requests != clients || r.Failed() != 0 {
		t.Errorf("%v; want all %d answered, by the replacement", r, clients)
	}
	if failed := p.logged(1, "worker failed"); failed["error"] != "signal: killed" || failed["next"] != 0.0 {
		t.Errorf("%v", failed)
	}
	p.stop()
}

// TestKilledWorkerUnderLoad kills workers under load. Only connections that the dead worker had accepted may fail.
func TestKilledWorkerUnderLoad(t *testing.T) {
	t.Parallel()
	accepts := t.TempDir() + "/accepts"
	if err := os.WriteFile(accepts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "http", nil, "-accepts="+accepts)
	u := apply(t, load(p, 16, 0))
	u.until(&u.answered, 100)
	const kills = 8
	dead := map[string]bool{}
	for i := range kills {
		pids := p.workers()
		pid := pids[i%len(pids)]
		dead[strconv.Itoa(pid)] = true
		syscall.Kill(pid, syscall.SIGKILL)
		p.logged(i+1, "worker ready")
	}
	r := u.finish()
	p.stop()
	by := acceptedBy(t, accepts)
	unlogged := 0
	for _, f := range r.Samples {
		var who []accepted
		for _, a := range by[f.Local] {
			if !a.when.Before(f.Sent) && !a.when.After(f.Ended) { // a port may be used again
				who = append(who, a)
			}
		}
		switch {
		case len(who) == 0:
			unlogged++ // killed between accept and the log: at most one a kill, since one accepts at a time
		case !slices.ContainsFunc(who, func(a accepted) bool { return dead[a.pid] }):
			t.Errorf("%s: %v, sent at %v, but it was accepted by %v, which lived", f.Kind, f.Err, f.Sent, who)
		}
	}
	if unlogged > kills {
		t.Errorf("%d failed connections were accepted by nobody, in %d kills: %v", unlogged, kills, r)
	}
	t.Logf("%v; %d of the failures not logged as accepted", r, unlogged)
}

// accepted is a worker that accepted a connection, and when.
type accepted struct {
	pid  string
	when time.Time
}

// acceptedBy reads which workers accepted connections from each client address.
func acceptedBy(t *testing.T, name string) map[string][]accepted {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string][]accepted{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		nanoseconds, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		by[f[1]] = append(by[f[1]], accepted{f[0], time.Unix(0, nanoseconds)})
	}
	return by
}

// TestManyCrashes has workers end faster than they can start, and wants the pack to stay calm.
func TestManyCrashes(t *testing.T) {
	t.Parallel()
	p := start(t, "broken", nil, "-workers=2", "-how=panic in worker 1")
	p.logged(4, "worker failed") // the others in about 250 ms, 500 ms
	if n := p.count("pack is up"); n != 0 {
		t.Error("it says it is up")
	}
	p.signal(syscall.SIGTERM)
	if status := p.wait(10 * time.Second); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestTCPEcho(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		p := start(t, "tcp", nil, fmt.Sprintf("-tls=%v", secure))
		dial := func() (net.Conn, error) { return net.Dial("tcp", p.address()) }
		if secure {
			dial = func() (net.Conn, error) {
				return tls.Dial("tcp", p.address(), &tls.Config{InsecureSkipVerify: true})
			}
		}
		var clients sync.WaitGroup
		var ready sync.WaitGroup
		ready.Add(10)
		for i := range 10 {
			clients.Go(func() {
				c, err := dial()
				if err != nil {
					t.Error(err)
					ready.Done()
					return
				}
				defer c.Close()
				r := bufio.NewReader(c)
				for j := range 20 {
					want := fmt.Sprintln("echo", i, j)
					io.WriteString(c, want)
					if got, err := r.ReadString('\n'); got != want {
						t.Errorf("%q, %v; want %q", got, err, want)
					}
				}
				ready.Done()
				if got, err := r.ReadString('\n'); got != "bye\n" {
					t.Errorf("at the stop: %q, %v", got, err)
				}
			})
		}
		ready.Wait()
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "panic")
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("after a panic in the handler: %d, %v", n, err)
		}
		c.Close()
		p.logged(1, "handler panicked")
		p.stop()
		clients.Wait()
		if n := p.count("worker failed"); n != 0 {
			t.Error("the panic ended the worker")
		}
	}
}

// TestTCPOneLiner has a handler that knows of no context: it sees the end of the stream at the stop.
func TestTCPOneLiner(t *testing.T) {
	t.Parallel()
	p := start(t, "oneline", nil, "-kind=tcp")
	c, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "hello\n")
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); line != "hello\n" {
		t.Error(line, err)
	}
	begun := time.Now()
	p.stop()
	if took := time.Since(begun); took > 20*time.Second { // the timeout is 30 s
		t.Errorf("the stop took %v", took)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("%v, want EOF", err)
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	p := start(t, "https", nil)
	for proto, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: http2}
		client := http.Client{Transport: tr}
		resp, err := client.Get("https://" + p.address() + "/proto")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if string(body) != proto || err != nil {
			t.Errorf("%s, %v; want %s", body, err, proto)
		}
		resp.Body.Close()
		defer tr.CloseIdleConnections()
	}
	p.stop()
}

func TestFunc(t *testing.T) {
	t.Parallel()
	p := start(t, "func", nil)
	slow := load(p, 5, 1)
	slow.Path = "/slow"
	u := apply(t, slow)
	u.until(&u.sent, 5)
	p.stop()
	if r := u.finish(); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
}

// TestLongConnections drains workers that have event streams and hijacked connections, by a reload and by a stop. Those
// that listen to Draining say good-bye; one that does not is cut.
func TestLongConnections(t *testing.T) {
	for _, program := range []string{"http", "https"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			p := start(t, program, nil, "-shutdown=3s")
			open := func(path string) *bufio.Reader {
				t.Helper()
				var c net.Conn
				var err error
				if program == "https" {
					c, err = tls.Dial("tcp", p.address(), &tls.Config{InsecureSkipVerify: true})
				} else {
					c, err = net.Dial("tcp", p.address())
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(20 * time.Second))
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
				r := bufio.NewReader(c)
				for line := ""; line != "hello\n"; {
					if line, err = r.ReadString('\n'); err != nil {
						t.Fatalf("%s: %q, %v", path, line, err)
					}
				}
				return r
			}
			for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
				streams := map[string]*bufio.Reader{"/events": open("/events"), "/hijack": open("/hijack")}
				deaf := open("/hijack?deaf")
				p.signal(s)
				for path, r := range streams {
					line, err := r.ReadString('\n')
					for err == nil && line != "bye\n" {
						line, err = r.ReadString('\n')
					}
					if err != nil {
						t.Errorf("%v, %s: %q, %v; want a good-bye", s, path, line, err)
					}
				}
				if s == syscall.SIGHUP {
					if cut := p.logged(1, "worker cut connections that had not finished"); cut["connections"] != 1.0 {
						t.Errorf("%v", cut)
					}
				}
				if rest, _ := io.ReadAll(deaf); len(rest) > 0 {
					t.Errorf("%v, the deaf one said %q", s, rest)
				}
			}
			if status := p.wait(10 * time.Second); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if stopped := p.logged(1, "stopped"); stopped["cut"] != 2.0 { // in the reload and in the stop
				t.Errorf("%v", stopped)
			}
		})
	}
}
