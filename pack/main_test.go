//go:build unix

package pack_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// asProgram makes the test binary one of the programs in programs_test.go; its value is the name.
const asProgram = "PACK_TEST_PROGRAM"

// inTime is how long something may take that ends at once, on a machine that is busy with other tests. It is less than
// the default of ShutdownTimeout, when all ends.
const inTime = 20 * time.Second

func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(asProgram); ok {
		if err := programs[name](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	test.Parallel("8")
	leaktest.Main(m)
}

// running is a running pack.
type running struct {
	*program.Test
	t testing.TB
}

// start starts a program; change may adapt the command before.
func start(t testing.TB, name string, change func(*exec.Cmd), args ...string) *running {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"="+name)
	if change != nil {
		change(cmd)
	}
	return &running{program.Run(t, cmd), t}
}

// inShell has a program start in the process of a shell that has done something before.
func inShell(c *exec.Cmd, script string) {
	c.Args = append([]string{"sh", "-c", script + ` && exec "$0" "$@"`, c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
}
