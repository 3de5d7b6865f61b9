//go:build linux

package examples_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// TestUpgradeFromPreviousCommit upgrades what the previous commit built to what this one builds, and back.
func TestUpgradeFromPreviousCommit(t *testing.T) {
	t.Parallel()
	before := t.TempDir()
	const script = `cd "$(git rev-parse --show-toplevel)" && git archive HEAD~1 | tar -x -C "$1"`
	archive := exec.Command("sh", "-c", script, "sh", before)
	if out, err := archive.CombinedOutput(); err != nil {
		t.Skipf("the previous commit is not to be had: %v, %s", err, out)
	}
	old, deployed := before+"/old", before+"/server"
	compile := exec.Command("go", "build", "-o", old, "./examples/http")
	compile.Dir = before
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("build of the previous commit: %v\n%s", err, out)
	}
	deploy := func(exe string) {
		t.Helper()
		if err := os.Link(exe, deployed+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(deployed+".new", deployed); err != nil {
			t.Fatal(err)
		}
	}
	deploy(old)
	p := start(t, deployed, "-addr=localhost:0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := make(chan *strictclient.Result, 2)
	for _, keep := range []bool{false, true} {
		l := strictclient.Load{
			Network: "tcp", Address: p.addresses[0], Clients: 4, KeepAlive: keep, Pause: 5 * time.Millisecond,
		}
		go func() { results <- l.Run(ctx) }()
	}
	current := build(t, "http")
	for _, exe := range []string{current, old, current} {
		deploy(exe)
		p.change(syscall.SIGUSR2, "upgraded")
	}
	cancel()
	for range 2 {
		if r := <-results; r.Failed() != 0 || r.Requests == 0 {
			t.Errorf("%v", r)
		} else {
			t.Log(r)
		}
	}
}

// TestUpgrade replaces the server of one process in place. (As a new process it would outlive the one that the test
// knows.)
func TestUpgrade(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "upgrade"), "-addr=localhost:0", "-inplace")
	want := fmt.Sprintf("hello from process %d\n", p.PID())
	for range 3 {
		expect(t, get(t, "tcp", p.addresses[0], "http://x/"), want)
		p.Signal(syscall.SIGHUP)
		p.Says(listening)
	}
	expect(t, get(t, "tcp", p.addresses[0], "http://x/"), want)
}
