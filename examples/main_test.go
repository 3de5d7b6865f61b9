//go:build linux

package examples_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// built is the directory of the examples' programs.
var built string

func TestMain(m *testing.M) {
	test.Parallel("8")
	var err error
	if built, err = os.MkdirTemp("", "examples"); err != nil {
		panic(err)
	}
	status := leaktest.Run(m)
	os.RemoveAll(built)
	os.Exit(status)
}

// buildAll builds the programs of all examples.
var buildAll = sync.OnceValue(func() error {
	if out, err := exec.Command("go", "build", "-o", built, "./...").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

// build returns the path of an example's program.
func build(t *testing.T, name string) string {
	t.Helper()
	if err := buildAll(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(built, name)
}

// listening finds what a pack, or the reuseport example, says it listens on.
var listening = regexp.MustCompile(`listening(?:="?\[([^]]*)\]| on (\S+))`)

// run runs an example until the test ends, and returns what it listens on, as it says. It must end gracefully.
func run(t *testing.T, name string, args ...string) (addresses []string) {
	t.Helper()
	return start(t, build(t, name), args...).addresses
}

// running is a running example.
type running struct {
	*program.Test
	t         *testing.T
	addresses []string // that it listens on, as it says
}

// start starts a program, which must end gracefully when the test does.
func start(t *testing.T, exe string, args ...string) *running {
	t.Helper()
	return startCommand(t, exec.Command(exe, args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	p := &running{Test: program.Run(t, cmd), t: t}
	t.Cleanup(func() {
		if !p.Ended() {
			p.Stop()
		}
	})
	m := p.Says(listening)
	for word := range strings.FieldsSeq(m[1] + m[2]) {
		if !slices.Contains([]string{"tcp", "udp", "unix"}, word) {
			p.addresses = append(p.addresses, word)
		}
	}
	return p
}

var changed = regexp.MustCompile(`msg="?(reloaded|upgraded|[a-z]+ failed)| (reloaded|upgraded|[a-z]+ failed)`)

// change sends a signal and waits for what it leads to.
func (p *running) change(s syscall.Signal, want string) {
	p.t.Helper()
	p.Signal(s)
	if m := p.Says(changed); m[1]+m[2] != want {
		p.t.Fatalf("%v led to %q; want %q", s, m[0], want)
	}
}
