//go:build linux

package pack_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProcess1 has a master that is the first process of a PID namespace, as in a container. Orphans become its
// children: it must reap them, and workers that crash must be replaced all the same, and the signal by which containers
// are stopped stop it.
func TestProcess1(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a PID namespace needs CAP_SYS_ADMIN")
	}
	t.Parallel()
	p := start(t, "http", func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
		inShell(c, "mount --make-rprivate / && mount -t proc proc /proc")
	}, "-workers=2")
	if pid := p.Logged(1, "pack is up")["pid"]; pid != 1.0 {
		t.Fatalf("the master is process %v", pid)
	}
	for i := range 3 {
		for range 5 {
			get(t, p, "/orphan")
		}
		syscall.Kill(p.Workers()[0], syscall.SIGKILL)
		p.Logged(i+1, "worker failed")
		p.Logged(i+1, "worker ready")
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		zombies := zombiesOf(p.PID())
		if len(zombies) == 0 && len(p.Workers()) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody reaps %v; workers %v", zombies, p.Workers())
		}
	}
	if n := p.Count("worker failed"); n != 3 {
		t.Errorf("%d workers failed; 3 were killed", n)
	}
	p.Stop() // by SIGTERM, which the kernel does not give to a process 1 that does not ask for it
}

// zombiesOf returns the children of a process that have ended and were not waited for.
func zombiesOf(parent int) (all []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range files {
		text, _ := os.ReadFile(name)
		_, rest, _ := strings.Cut(string(text), ") ")
		var state string
		var ppid int
		fmt.Sscan(rest, &state, &ppid)
		if state == "Z" && ppid == parent {
			all = append(all, string(text))
		}
	}
	return all
}
