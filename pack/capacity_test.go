//go:build linux

package pack_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

func init() { programs["idler"] = idlerProgram }

// idlerProgram opens connections, has one request answered on each, says so, and leaves them idle until its
// standard input ends. Then it has one more answered on each.
func idlerProgram() error {
	address := flag.String("address", "", "")
	n := flag.Int("n", 0, "")
	flag.Parse()
	conns := make([]net.Conn, 0, *n)
	for range *n {
		c, err := net.Dial("tcp", *address)
		if err != nil {
			return err
		}
		conns = append(conns, c)
		if _, err := ask(c, bufio.NewReaderSize(c, 512)); err != nil {
			return err
		}
	}
	fmt.Println("holding", len(conns))
	io.Copy(io.Discard, os.Stdin)
	for i, c := range conns {
		if _, err := ask(c, bufio.NewReaderSize(c, 512)); err != nil {
			return fmt.Errorf("after a while, connection %d: %w", i, err)
		}
	}
	return nil
}

// hold starts an idler. The function that it returns waits until it holds its connections, and returns what lets
// them go.
func hold(t *testing.T, address string, n int) (wait func() (release func())) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-address="+address, "-n="+strconv.Itoa(n))
	cmd.Env = append(os.Environ(), asProgram+"=idler")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release := sync.OnceFunc(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the client: %v", err)
		}
	})
	t.Cleanup(release)
	return func() func() {
		if line, err := bufio.NewReader(out).ReadString('\n'); line != fmt.Sprintln("holding", n) {
			t.Fatalf("the client says %q, %v", line, err)
		}
		return release
	}
}

// descriptors returns how many descriptors a process has open.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestManyIdleConnections has two workers hold 2,000 connections, or 18,000, and hand them over in a reload. One of them
// may hold most: a worker whose CPU others use gives idle connections away.
func TestManyIdleConnections(t *testing.T) {
	t.Parallel()
	each := test.Times(1000, 9000)
	files := 2*each + 200
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < uint64(files) {
		t.Skipf("needs %d open files, may have %d", files, limit.Max)
	}
	p := start(t, "http", nil, "-workers=2", "-files="+fmt.Sprint(files))
	load(p, 8, 100).Run(t.Context()) // what the first requests cost is not the connections'
	workers := p.Workers()
	before := map[int]int{}
	for _, pid := range workers {
		before[pid] = program.Status(pid, "VmRSS")
	}
	first, second := hold(t, p.Address(), each), hold(t, p.Address(), each)
	release := []func(){first(), second()}
	for _, pid := range workers {
		conns := descriptors(t, pid)
		more := program.Status(pid, "VmRSS") - before[pid]
		t.Logf("worker %d: %d connections, %.1f KiB each", pid, conns, float64(more)/float64(conns))
	}
	t.Logf("master: %d descriptors, %d KiB", descriptors(t, p.PID()), program.Status(p.PID(), "VmRSS"))
	if r := load(p, 8, 50).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("with all of them open: %v", r)
	}
	begun := time.Now()
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "generation has drained")
	t.Logf("%d connections were handed over in %v", 2*each, time.Since(begun))
	p.Until("the new workers to have all connections", program.Patience, func() bool { // some may be on their way yet
		total := 0
		for _, pid := range p.Workers() {
			total += descriptors(t, pid)
		}
		return total >= 2*each
	})
	for _, f := range release {
		f()
	}
	p.Stop()
}

const shortOfFiles = "cannot accept connections, they wait in the queue; " +
	"raise the limit of open files, or look for a leak"

// TestDescriptorsRunOut has more connections than a worker may have descriptors.
func TestDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	const limit, conns = 60, 100
	p := start(t, "http", func(c *exec.Cmd) {
		inShell(c, fmt.Sprintf("ulimit -n %d", limit))
	}, "-workers=1")
	address := p.Address()
	worker := p.Workers()[0]
	var held []net.Conn
	for range conns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	p.Logged(1, shortOfFiles)
	before := program.CPUTime(worker)
	held[0].SetReadDeadline(time.Now().Add(time.Second))
	if _, err := held[0].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that was accepted before: %v; want it to stay open", err)
	}
	if used := program.CPUTime(worker) - before; used > 500*time.Millisecond {
		t.Errorf("the worker used %v of a CPU in a second in which it could do nothing", used)
	}
	for _, c := range held[:limit] { // each lets one in, and then there are too many again
		c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	for i, c := range held[limit:] {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatalf("connection %d, which waited in the queue: %v", limit+i, err)
		} else {
			resp.Body.Close()
		}
	}
	p.Logged(1, "accepting connections again")
	for _, msg := range []string{shortOfFiles, "accepting connections again"} {
		if n := p.Count(msg); n != 1 {
			t.Errorf("%d lines in the log that say %q, want one", n, msg)
		}
	}
	p.Stop()
}
