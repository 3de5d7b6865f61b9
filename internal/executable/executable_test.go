//go:build linux

package executable_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/internal/executable"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

const asHelper = "EXECUTABLE_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(asHelper) != "" {
		path, err := executable.Path()
		fmt.Println(path, err)
		return
	}
	leaktest.Main(m)
}

// TestPath starts a program in the ways that programs are started.
func TestPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"v1", "elsewhere"} {
		if err := os.Mkdir(dir+"/"+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/v1/server", self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("v1", dir+"/current"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		called, path, dir, want string
	}{
		{dir + "/v1/server", "", "", "/v1/server"},
		{dir + "/current/server", "", "", "/current/server"}, // the link is kept
		{"./server", dir + "/v1/server", dir + "/current", "/current/server"},
		{"current/server", dir + "/v1/server", dir, "/current/server"},
		{"server", dir + "/v1/server", dir + "/elsewhere", "/current/server"}, // found in PATH
		{"-server", dir + "/v1/server", dir, "/v1/server"},                    // a login shell's way
		{"some other name", dir + "/v1/server", dir, "/v1/server"},
		{"/bin/sh", dir + "/v1/server", dir, "/v1/server"},
		{"", dir + "/v1/server", dir, "/v1/server"},
	} {
		cmd := exec.Command(c.called)
		if cmd.Args[0], cmd.Dir = c.called, c.dir; c.path != "" {
			cmd.Path, cmd.Err = c.path, nil
		}
		cmd.Env = append(os.Environ(), asHelper+"=1", "PATH="+dir+"/current", "PWD="+c.dir)
		out, err := cmd.Output()
		if got, want := strings.TrimSpace(string(out)), dir+c.want+" <nil>"; got != want || err != nil {
			t.Errorf("called %q in %q: %q, %v; want %q", c.called, c.dir, got, err, want)
		}
	}
}

// TestImage replaces and removes a file that is held.
func TestImage(t *testing.T) {
	path := t.TempDir() + "/program"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	read := func(i *executable.Image) string {
		t.Helper()
		p, err := i.Path()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	write("one")
	i, err := executable.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if p, err := i.Path(); p != path || err != nil {
		t.Errorf("Path: %q, %v; want %q", p, err, path)
	}
	write("two")
	if got := read(i); got != "one" {
		t.Errorf("after it was replaced: %q", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := read(i); got != "one" {
		t.Errorf("after it was removed: %q", got)
	}
	running, err := executable.Running()
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if p, err := running.Path(); err != nil || p != self {
		t.Errorf("Running: %q, %v; want %q", p, err, self)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/text", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/none": "no such file or directory",
		dir:           "is not a regular file",
		dir + "/text": "may not be executed: its mode is -rw-r--r--",
	} {
		if _, err := executable.Open(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want an error about %q", path, err, want)
		}
	}
}
