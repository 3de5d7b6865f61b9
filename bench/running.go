//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
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
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/bench/internal/answers"
	"github.com/gopherpack/gopherpack/bench/internal/procs"
)

// running is a server that runs. There is one at a time.
type running struct {
	*server
	bench   *bench
	cpus    affinity.Set
	secure  bool
	args    []string // that a scenario adds
	dir     string   // of its own
	address string
	begun   time.Time
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the first process has ended
	others  []*exec.Cmd   // second instances
}

// patience is how long something may take that takes no time, on a machine that does much else.
const patience = 30 * time.Second

// start starts a server, and returns when all of it serves.
func (c *cell) start() (*running, error) {
	r, err := c.launch()
	if err != nil {
		return nil, err
	}
	if err := r.await(); err != nil {
		return nil, errors.Join(r.explain(err), r.stop())
	}
	return r, nil
}

// explain returns why a server does not serve.
func (r *running) explain(err error) error {
	if r.needs != "" && r.gone() {
		return fmt.Errorf("%s %w: it needs %s, and has ended", r.name, errAbsent, r.needs)
	}
	return fmt.Errorf("%w; it said %q", err, r.said())
}

// launch starts a server, and waits for nothing.
func (c *cell) launch() (*running, error) {
	dir, err := os.MkdirTemp(c.bench.dir, "server")
	if err != nil {
		return nil, err
	}
	r := &running{server: c.server, bench: c.bench, cpus: affinity.Of(c.bench.serverCPUs(c.cpus)...), secure: c.secure,
		args: c.args, dir: dir, ended: make(chan struct{})}
	if err := os.Chmod(dir, 0o755); err != nil { // workers of nginx are nobody's
		return nil, err
	}
	if r.address, err = freeAddress(); err != nil {
		return nil, err
	}
	r.begun = time.Now()
	if r.cmd, err = r.instance(); err != nil {
		return nil, err
	}
	go func() { r.cmd.Wait(); close(r.ended) }()
	return r, nil
}

// instance starts a process of the server in a group of its own.
func (r *running) instance() (*exec.Cmd, error) {
	cmd, err := r.server.start(r)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(r.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), answers.BurnFor+"="+r.bench.burn().String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, affinity.Do(r.cpus, cmd.Start)
}

func (r *running) logFile() string { return filepath.Join(r.dir, "log") }

// said returns the end of what the server wrote.
func (r *running) said() string {
	text, _ := os.ReadFile(r.logFile())
	return string(text[max(0, len(text)-500):])
}

// nextPort is where the search for a free port goes on.
var nextPort = 20000 + os.Getpid()%10000

// freeAddress returns one on which nobody listens. Not all servers can tell which port they got, so that all get theirs
// beforehand: one below those that the kernel takes for connections, so that none takes it meanwhile.
func freeAddress() (string, error) {
	for range 10000 {
		nextPort++
		if nextPort >= 30000 {
			nextPort = 20000
		}
		address := fmt.Sprintf("127.0.0.1:%d", nextPort)
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("all ports from 20000 to 29999 are taken")
}

// await waits until the server serves with all its workers.
func (r *running) await() error {
	deadline := time.Now().Add(patience)
	seen := map[int]bool{}
	var settled time.Time
	for ; ; time.Sleep(2 * time.Millisecond) {
		switch {
		case r.gone():
			return errors.New("it has ended")
		case time.Now().After(deadline):
			return errors.New("it does not serve")
		case r.own:
			if text, _ := os.ReadFile(r.logFile()); bytes.Contains(text, []byte("pack is up")) {
				return nil
			}
			continue
		case r.server == grpcGo:
			if conn, err := net.Dial("tcp", r.address); err == nil {
				return conn.Close()
			}
			continue
		}
		pid, err := r.ask()
		if err != nil {
			continue
		}
		if settled.IsZero() {
			settled = time.Now().Add(time.Second)
		}
		// A worker that is not chosen by chance for so long is believed to be there.
		if seen[pid] = true; !r.workers || len(seen) >= r.cpus.Len() || time.Now().After(settled) {
			return nil
		}
	}
}

func (r *running) gone() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// dead reports whether no process of the server is left. A look at all processes takes its time, and could miss one
// that replaces the first meanwhile; not so when the first is known to have ended.
func (r *running) dead() bool {
	if !r.gone() {
		return false
	}
	left, err := r.processes()
	return err == nil && len(left) == 0
}

// ask returns which process answers on a new connection.
func (r *running) ask() (pid int, err error) {
	conn, err := r.dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return askOn(conn, bufio.NewReader(conn), "/pid")
}

func (r *running) dial() (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", r.address, patience)
	if err != nil || !r.secure {
		return conn, err
	}
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), nil
}

// askOn asks on a connection; answers to /pid have a number.
func askOn(conn net.Conn, reader *bufio.Reader, path string) (pid int, err error) {
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", path); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d", resp.StatusCode)
	}
	if path == "/pid" {
		return strconv.Atoi(strings.TrimSpace(string(body)))
	}
	return 0, nil
}

// processes returns all processes of the server: all that this process has started, directly or not, but clients, and
// those whose parent has gone (see adopt).
func (r *running) processes() ([]int, error) {
	all, err := procs.Tree(os.Getpid())
	if err != nil || len(all) == 0 {
		return nil, err
	}
	clients := r.bench.clientPIDs()
	return slices.DeleteFunc(all[1:], func(pid int) bool { return slices.Contains(clients, pid) }), nil
}

// serving returns the processes that serve.
func (r *running) serving() ([]int, error) {
	all, err := r.processes()
	if r.workers || r.server == haproxy {
		all = slices.DeleteFunc(all, func(pid int) bool { return pid == r.cmd.Process.Pid })
	}
	return all, err
}

// adopt makes this process the parent of those below it whose parent ends, so that none is lost sight of.
func adopt() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// stop ends all processes of the server.
func (r *running) stop() error {
	if r.group && !r.gone() {
		syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	} else {
		r.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, second := range r.others {
		syscall.Kill(-second.Process.Pid, syscall.SIGKILL)
		second.Wait()
	}
	termed := false
	seen := []int{}
	for begun := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		gone := r.gone() // before the look; see dead
		left, err := r.processes()
		if err != nil {
			return err
		}
		for _, pid := range left {
			if !slices.Contains(seen, pid) {
				seen = append(seen, pid)
			}
		}
		switch {
		case len(left) == 0 && gone:
			reap(seen)
			return os.RemoveAll(r.dir)
		case gone && !termed: // what has replaced the first process
			termed = true
			signalAll(left, syscall.SIGTERM)
		case time.Since(begun) > 2*patience:
			return fmt.Errorf("%s: processes %v do not end", r.name, left)
		case time.Since(begun) > 5*time.Second:
			signalAll(left, syscall.SIGKILL)
		}
	}
}

// signalAll signals processes that this one has started.
func signalAll(pids []int, s syscall.Signal) {
	for _, pid := range pids {
		syscall.Kill(pid, s)
	}
}

// reap waits for processes that were adopted, and have ended.
func reap(pids []int) {
	for _, pid := range pids {
		syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// sleepUntil waits for a time, or until ctx ends.
func sleepUntil(ctx context.Context, t time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(t)):
		return nil
	}
}
