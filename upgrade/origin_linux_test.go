package upgrade

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test"
)

func TestProcessName(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{{[]string{"/srv/server", "x"}, "server"}, {[]string{"-sh"}, "sh"}, {[]string{""}, "real"}, {nil, "real"}} {
		if got := processName(tt.args, "/srv/real"); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.args, got, tt.want)
		}
	}
}

// TestNamed names a file that could not be executed, and tells what may be wrong.
func TestNamed(t *testing.T) {
	i := &Image{name: "/srv/server", path: "/proc/self/fd/16"}
	err := i.named(&fs.PathError{Op: "fork/exec", Path: i.path, Err: unix.EACCES})
	const want = "fork/exec /srv/server: permission denied: this user may not execute it, or its file system is mounted noexec"
	if !errors.Is(err, fs.ErrPermission) || err.Error() != want {
		t.Errorf("%v; want %q", err, want)
	}
	if i.named(nil) != nil {
		t.Error("what has started has an error")
	}
}

// TestExecutedAs finds this program without /proc.
func TestExecutedAs(t *testing.T) {
	test.NotEmulated(t, "/proc/self/exe is the emulator")
	found, err := os.Stat(executedAs())
	if err != nil {
		t.Fatal(err)
	}
	if self, err := os.Stat(runningFile); err != nil || !os.SameFile(found, self) {
		t.Errorf("%s is another file: %v", executedAs(), err)
	}
}
