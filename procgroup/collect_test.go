//go:build linux

package procgroup

import (
	"errors"
	"os/exec"
	"testing"
	"time"
)

// stuck is a Writer that takes nothing until it is closed.
type stuck chan struct{}

func (s stuck) Write(b []byte) (int, error) { <-s; return len(b), nil }

// TestCollectLeavesWhatHangs has a Writer hang in Write, which os/exec waits for whatever its WaitDelay.
func TestCollectLeavesWhatHangs(t *testing.T) {
	s := make(stuck)
	cmd := exec.Command("/bin/sh", "-c", "echo x; exit 3")
	cmd.Stdout, cmd.WaitDelay = s, time.Millisecond
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitid(cmd.Process.Pid)
	if err := collect(cmd, time.Millisecond); !errors.Is(err, errCopying) {
		t.Errorf("%v; want %v", err, errCopying)
	}
	close(s)
}
