//go:build linux

package examples_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// image makes what the Dockerfile's last stage has: the static program, and nothing else but where a runtime mounts /proc and
// /dev/null.
func image(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	compile := exec.Command("go", "build", "-trimpath", "-o", root+"/site", "./deploy/container")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, dir := range []string{"/proc", "/dev"} {
		if err := os.Mkdir(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+"/dev/null", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // the program's user must get there
			t.Fatal(err)
		}
	}
	return root
}

// contained returns a command that runs a program of the image as a container runtime does: process 1, as the user of
// the Dockerfile, without privileges, on a file system that cannot be written to.
func contained(root string, args ...string) *exec.Cmd {
	const enter = `set -e
mount --make-rprivate /
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount -t proc proc "$0/proc"
mount --bind /dev/null "$0/dev/null"
exec setpriv --no-new-privs chroot --groups= --userspec=65532:65532 "$0" /site "$@"`
	cmd := exec.Command("sh", append([]string{"-c", enter, root}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS |
		syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP}
	return cmd
}

// TestContainer runs the image's file system: reloads and upgrades of process 1 lose nothing, its health check tells
// whether it serves, and it stops by the signal that the Dockerfile names.
func TestContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("namespaces need CAP_SYS_ADMIN")
	}
	t.Parallel()
	file, err := os.ReadFile("deploy/container/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"RUN CGO_ENABLED=0 go build -trimpath -o /site ./examples/deploy/container", "COPY --from=build /site /site",
		"USER 65532:65532", "STOPSIGNAL SIGTERM", `ENTRYPOINT ["/site"]`,
	} {
		if !strings.Contains(string(file), "\n"+line+"\n") {
			t.Errorf("the Dockerfile has no line %q, as this test does", line)
		}
	}
	allowed, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	root := image(t)
	p := startCommand(t, contained(root, "-addr=127.0.0.1:0"))
	if !strings.Contains(p.Text(), fmt.Sprintf("pack is up pid=1 workers=%d ", allowed.Len())) {
		t.Fatal("the master is not process 1, or has not as many workers as CPUs")
	}
	check := func() error { return contained(root, "-check", "-addr="+p.addresses[0]).Run() }
	if err := check(); err != nil {
		t.Errorf("the health check of a pack that serves: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := make(chan *strictclient.Result, 2)
	for _, keep := range []bool{false, true} {
		l := strictclient.Load{
			Network: "tcp", Address: p.addresses[0], Clients: 4, KeepAlive: keep, Pause: 5 * time.Millisecond,
		}
		go func() { results <- l.Run(ctx) }()
	}
	p.change(syscall.SIGHUP, "reloaded")
	p.change(syscall.SIGUSR2, "upgraded")
	cancel()
	for range 2 {
		if r := <-results; r.Failed() != 0 || r.Requests == 0 {
			t.Errorf("%v", r)
		}
	}
	expect(t, get(t, "tcp", p.addresses[0], "http://x/"), `hello from worker \d+\n`)

	p.Stop() // by SIGTERM; it must exit with status 0
	if check() == nil {
		t.Error("the health check succeeds when nobody serves")
	}
}
