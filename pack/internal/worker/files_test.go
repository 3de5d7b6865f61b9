//go:build unix

package worker

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/rlimit"
)

// TestFilesOfChildren starts a program with a limit of 100:300 open files, and asks what it has and what its children
// get when it has raised the limit.
func TestFilesOfChildren(t *testing.T) {
	if _, err := rlimit.Get(rlimit.NOFILE); err != nil {
		t.Skip(err)
	}
	for files, want := range map[string]string{"0": "299 100", "250": "299 100", "300": "300 300"} {
		cmd := exec.Command("/bin/sh", "-c", `ulimit -Sn 100 && ulimit -Hn 300 && exec "$0"`, os.Args[0])
		cmd.Env = append(os.Environ(), asHelper+"=files "+files)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("Files %s: %q, %v; want %s", files, out, err, want)
		}
	}
}

func tellFiles(files string) {
	n, _ := strconv.ParseUint(files, 10, 64)
	if err := RaiseFiles(n); err != nil {
		fmt.Print(err)
	}
	own, _ := rlimit.Get(rlimit.NOFILE)
	child, err := exec.Command("/bin/sh", "-c", "ulimit -Sn").Output()
	if err != nil {
		fmt.Print(err)
	}
	fmt.Print(own.Soft, " ", strings.TrimSpace(string(child)))
}
