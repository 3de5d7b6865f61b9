package systemd

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestIsJournal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	ours := fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
	for stream, want := range map[string]bool{ours: true, "": false, "1:1": false, ours + "0": false, "x": false} {
		t.Setenv("JOURNAL_STREAM", stream)
		if got := IsJournal(f); got != want {
			t.Errorf("with JOURNAL_STREAM=%s, and a file %s, it is %v", stream, ours, got)
		}
	}
}
