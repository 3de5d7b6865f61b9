//go:build unix

package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/internal/fdmsg"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/rlimit"
)

// asHelper makes the test binary a worker that does what its value says.
const asHelper = "WORKER_TEST_HELPER"

func TestMain(m *testing.M) {
	if what := os.Getenv(asHelper); what != "" {
		helper(what)
		return
	}
	leaktest.Main(m)
}

// helper is a worker in a process of its own. Its requests for /limit and /unlimit set the limit of open files so that
// no more can be opened, and undo that.
func helper(what string) {
	if files, ok := strings.CutPrefix(what, "files "); ok {
		tellFiles(files)
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	control, err := fdmsg.Conn(os.NewFile(3, "control"))
	if err != nil {
		log.Error("control", "error", err)
		os.Exit(2)
	}
	before, _ := rlimit.Get(rlimit.NOFILE)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/limit":
			noMoreFiles()
		case "/unlimit":
			rlimit.Set(rlimit.NOFILE, before)
		}
		io.WriteString(w, "hello")
	})}
	c := withSignals
	c.Log, c.HangTimeout, c.ShutdownTimeout = log, time.Minute, limit
	c.Handles = func() []Handle { return []Handle{{Endpoint: anyPort, Server: drain.NewHTTP(srv)}} }
	switch what {
	case "no files":
		c.OnStart = func(context.Context) error { return noMoreFiles() }
	case "blocked":
		c.OnShutdown = func(context.Context) { select {} }
	}
	if err := Run(context.Background(), c, control); err != nil {
		log.Error("Run", "error", err)
		os.Exit(3)
	}
}

// noMoreFiles lowers the limit of open files to the lowest descriptor that is free.
func noMoreFiles() error {
	fd, err := syscall.Dup(0)
	if err != nil {
		return err
	}
	syscall.Close(fd)
	now, err := rlimit.Get(rlimit.NOFILE)
	if err != nil {
		return err
	}
	return rlimit.Set(rlimit.NOFILE, rlimit.Limit{Soft: uint64(fd), Hard: now.Hard})
}

// superviseHelper starts a helper.
func superviseHelper(t *testing.T, what string) (*fakeMaster, *os.Process) {
	t.Helper()
	ours, theirs, err := fdmsg.Pair("control")
	if err != nil {
		t.Fatal(err)
	}
	m := newFakeMaster(t, ours)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asHelper+"="+what)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = m.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	go func() { m.ran <- cmd.Wait() }()
	m.receive()
	t.Cleanup(func() {
		cmd.Process.Kill()
	})
	m.expect(wire.Hello)
	return m, cmd.Process
}

// TestLostDescriptors sends descriptors to a worker that has none left.
func TestLostDescriptors(t *testing.T) {
	m, _ := superviseHelper(t, "serve")
	m.expect(wire.Ready)
	client, other := dial(t, m.socket), listen(t)
	if err := get(client, "/limit"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ours, theirs := socketPair(t)
		m.tell(wire.Message{Type: wire.Handover, Endpoint: &anyPort}, theirs)
		theirs.Close()
		ours.SetDeadline(time.Now().Add(limit))
		if _, err := ours.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection that is lost: %v", err)
		}
	}
	m.tell(cover(1), other.(syscall.Conn))
	if r := m.expect(wire.Covered); r.Socket != 1 || r.Error == "" {
		t.Errorf("%+v", r.Message)
	}
	m.tell(drainSocket(2), other.(syscall.Conn))
	if r := m.expect(wire.Covered); r.Socket != 2 || r.Error == "" {
		t.Errorf("%+v", r.Message)
	}
	m.tell(wire.Message{Type: wire.Board}, other.(syscall.Conn))
	m.ping()
	if err := get(client, "/unlimit"); err != nil {
		t.Fatal(err)
	}
	m.tell(cover(1), other.(syscall.Conn))
	if err := get(dial(t, other), "/"); err != nil {
		t.Error(err)
	}
	ours, theirs := socketPair(t)
	m.tell(wire.Message{Type: wire.Handover, Endpoint: &anyPort}, theirs)
	if err := get(ours, "/"); err != nil {
		t.Error(err)
	}
	ours.Close()
	m.tell(wire.Message{Type: wire.Drain})
	m.expectEnd(0)
	if m.log.count(slog.LevelWarn, "handed over") != 1 || m.log.count(slog.LevelInfo, "connections=3") != 1 ||
		m.log.count(slog.LevelError, "") != 0 {
		t.Errorf("it logged\n%s", m.log)
	}
}

// TestLostSocket has a worker not get its own.
func TestLostSocket(t *testing.T) {
	m, _ := superviseHelper(t, "no files")
	if r := m.expect(wire.Failed); !strings.Contains(r.Error, "raise the limit of open files") {
		t.Errorf("failed: %q", r.Error)
	}
	m.expectNothing()
}

// TestSecondSignalWithoutMaster wants the first one after the master's end to be harmless, and the second to end the
// process.
func TestSecondSignalWithoutMaster(t *testing.T) {
	m, process := superviseHelper(t, "blocked")
	m.expect(wire.Ready)
	process.Signal(syscall.SIGHUP)
	process.Signal(syscall.SIGTERM)
	m.expect(wire.Stopping)
	process.Signal(syscall.SIGTERM)
	m.ping()
	m.conn.CloseWrite()
	waitFor(t, func() bool { return m.log.count(slog.LevelWarn, "the master is gone") == 1 })
	process.Signal(syscall.SIGTERM)
	waitFor(t, func() bool { return m.log.count(slog.LevelDebug, "it does so already") == 1 })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		process.Signal(syscall.SIGTERM)
		select {
		case err := <-m.ran:
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || !exit.Sys().(syscall.WaitStatus).Signaled() {
				t.Errorf("it ended with %v", err)
			}
			return
		case <-tick.C:
		}
	}
}
