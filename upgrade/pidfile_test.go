//go:build linux

package upgrade_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/upgrade"
)

func init() {
	scripts["nothing"] = func(*life) error { return nil }
}

// TestPIDFileCannotBeWritten removes the directory of a PID file whose path is relative: upgrades fail, and work again
// when it is back.
func TestPIDFileCannotBeWritten(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := prepareServer(t, how, "relative")
		r.cmd.Dir = r.dir
		if err := os.Mkdir(r.dir+"/run", 0o755); err != nil {
			t.Fatal(err)
		}
		// Where the other tests look for it.
		if err := os.Symlink("run/pid", r.dir+"/pid"); err != nil {
			t.Fatal(err)
		}
		r.run(asScript + "=nothing " + r.dir)
		r.replace(1)
		if err := os.Rename(r.dir+"/run", r.dir+"/gone"); err != nil {
			t.Fatal(err)
		}
		r.hangUp()
		if got, want := r.next("failed:"), "PID file: "; !strings.Contains(got, want) {
			t.Errorf("the upgrade: %q, want something about %q", got, want)
		}
		if err := os.Rename(r.dir+"/gone", r.dir+"/run"); err != nil {
			t.Fatal(err)
		}
		r.hasPID()
		r.replace(2)
		os.Remove(r.dir + "/pid")
		r.stop()
		if left, _ := filepath.Glob(r.dir + "/run/*"); len(left) > 0 {
			t.Errorf("files are left: %v", left)
		}
	})
}

// TestPIDFile looks at what stands where a PID file should be.
func TestPIDFile(t *testing.T) {
	defer upgrade.ForgetNew()
	dir := t.TempDir()
	file := dir + "/pid"
	open := func() *upgrade.Upgrader {
		t.Helper()
		upgrade.ForgetNew()
		u, err := upgrade.New(&upgrade.Config{PIDFile: file})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	if err := os.Mkdir(file, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := open().Ready(); err == nil || !strings.Contains(err.Error(), "PID file: "+file+" is a directory") {
		t.Errorf("a directory: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("123456789 and more"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := open()
	if err := u.Ready(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if text, err := os.ReadFile(file); string(text) != fmt.Sprintln(os.Getpid()) || err != nil {
			t.Errorf("the PID file has %q, %v", text, err)
		}
		if err := u.Ready(); err != nil {
			t.Error(err)
		}
	}
	if out, err := exec.Command("sh", "-c", `read pid <"$0" && kill -0 "$pid"`, file).CombinedOutput(); err != nil {
		t.Errorf("a shell reads it: %v, %s", err, out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o600 != 0o600 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
	if err := u.Finish(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("it was removed although nobody has called Close: %v", err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if err := u.Finish(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	u = open()
	if err := u.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("1\n"), 0o600); err != nil { // of another instance
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if err := u.Finish(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("another's was removed: %v", err)
	}
}
