//go:build linux

package pack_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const cannotTakeOver = "it cannot take over from a master of an older version: " +
	"stop the pack, and start the new executable"

// TestTriedOutByOlderMaster starts a program as a master of version 1 does to see whether it would do. It must answer
// in that master's words, and must not start a pack, which OnStart would show.
func TestTriedOutByOlderMaster(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rehearsal string
		refuses   bool
	}{
		"asked":               {fmt.Sprintf("fd=3 parent=%d version=1 protocol=1", os.Getpid()), true},
		"by somebody else":    {"fd=3 parent=1 version=1 protocol=1", false},
		"without descriptors": {fmt.Sprintf("fd=2 parent=%d version=1 protocol=1", os.Getpid()), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			p := start(t, "hooks", func(c *exec.Cmd) {
				c.ExtraFiles = []*os.File{theirs}
				c.Env = append(c.Env, "GOPHERPACK_REHEARSAL="+test.rehearsal)
			}, "-workers=1")
			theirs.Close()
			if !test.refuses {
				p.Logged(1, "hook OnStart")
				p.Stop()
				return
			}
			ours.SetReadDeadline(time.Now().Add(20 * time.Second))
			answer, err := io.ReadAll(ours)
			if want := `{"error":"` + cannotTakeOver + `"}` + "\n"; err != nil || string(answer) != want {
				t.Errorf("it answers %q, %v; want %q", answer, err, want)
			}
			status := p.Wait(inTime)
			p.WaitSilent()
			if status != 0 || len(p.Lines(0)) > 0 {
				t.Errorf("exit status %d, log %q", status, p.Text())
			}
		})
	}
}

// TestBecomesSuccessorOfOlderMaster makes a program the successor of a master of version 1. It must not start a pack
// beside the workers that it has inherited, which drain when it ends.
func TestBecomesSuccessorOfOlderMaster(t *testing.T) {
	t.Parallel()
	p := start(t, "hooks", func(c *exec.Cmd) {
		inShell(c, `export GOPHERPACK_SUCCESSION="version=1 pid=$$ fd=7 previous=8"`)
	}, "-workers=1")
	if status := p.Wait(inTime); status != 1 || !p.Said("pack: "+cannotTakeOver) || len(p.Records()) > 0 {
		t.Errorf("exit status %d, log %q", status, p.Text())
	}
}

// TestTriesOutOlderExecutable goes back to an executable of version 1. It is played by one that does what those do in
// their preflight, and that hangs, as if it served, if it does not understand that it is in one.
func TestTriesOutOlderExecutable(t *testing.T) {
	t.Parallel()
	p, path := startVersion(t, nil)
	place(t, path, []byte(`#!/bin/sh
case "$GOPHERPACK_REHEARSAL" in
"fd=3 parent=$PPID version="*)
	echo '{"error":"it takes over a state of version 1, and this is version 2"}' >&3
	exit 0
esac
sleep 100
`))
	p.Signal(syscall.SIGUSR2)
	failed := fmt.Sprint(p.Logged(1, "upgrade failed, the old workers go on")["error"])
	if !strings.Contains(failed, "it takes over a state of version 1, and this is version 2") {
		t.Error(failed)
	}
	p.HasWorkers(2)
	p.answersVersion("1")
	p.Stop()
}
