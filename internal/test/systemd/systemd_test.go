//go:build linux

package systemd_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test/leaktest"
	"github.com/gopherpack/gopherpack/internal/test/systemd"
)

func TestMain(m *testing.M) {
	systemd.Main()
	leaktest.Main(m)
}

// TestBoot boots a system, and looks around in there.
func TestBoot(t *testing.T) {
	if !systemd.Inside() {
		systemd.Run(t, "^TestBoot$", nil)
		return
	}
	if name, err := os.ReadFile("/proc/1/comm"); string(name) != "systemd\n" {
		t.Fatalf("process 1 is %q: %v", name, err)
	}
	if version, err := systemd.Ctl("--version"); !strings.HasPrefix(version, "systemd 257") {
		t.Errorf("%s: %v", version, err)
	}
	unit := "[Service]\nType=oneshot\nExecStart=echo hello\n"
	if err := os.WriteFile(systemd.Units+"/hello.service", []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"daemon-reload"}, {"start", "hello.service"}} {
		if _, err := systemd.Ctl(args...); err != nil {
			t.Error(err)
		}
	}
	if said := systemd.Journal("hello.service"); !slices.Contains(strings.Split(said, "\n"), "hello") {
		t.Errorf("the journal: %s", said)
	}
	if state := systemd.Show("hello.service", "ActiveState"); state != "inactive" {
		t.Errorf("it is %s", state)
	}
}
