//go:build linux

package pack_test

import (
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
)

// needed is all that a master has a use for: to give Unix sockets away, signal workers of another user and become them,
// bind ports below 1024, keep new connections out in a stop, and load the steering.
const needed = "-all,+chown,+kill,+setuid,+setgid,+net_bind_service,+net_admin,+bpf"

// TestCapabilities has a master that can never have more capabilities than these, and workers of another user, and does
// to it what a master must be able to do.
func TestCapabilities(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has capabilities to give up")
	}
	t.Parallel()
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Fatal(err)
	}
	asNobody := asNobody(t)
	p := start(t, "steered", func(c *exec.Cmd) {
		asNobody(c) // for where it is, not for who
		c.SysProcAttr = nil
		c.Args = append([]string{"setpriv", "--bounding-set", needed, c.Path}, c.Args[1:]...)
		c.Path = setpriv
	}, "-workers=2", "-user=65534:65534", "-address=tcp 127.0.0.1:81", "-require", hangTimeout, "-generations=20")
	p.Addresses()
	u := apply(t, load(p, 8, 0))
	p.Signal(syscall.SIGHUP)
	p.Logged(1, "reloaded")
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	p.Signal(syscall.SIGTTIN)
	p.Logged(1, "number of workers changed")
	p.HasWorkers(3)
	loseNothing(t, u)
	pid := p.Workers()[1]
	freeze(t, pid)
	p.Logged(1, "worker hangs, killing it")
	p.Logged(1, "worker ready")
	if slices.Contains(p.Workers(), pid) {
		t.Error("the worker that hangs is still there")
	}
	u = apply(t, load(p, 8, 0))
	u.until(&u.answered, 100)
	p.Stop()
	comeTooLate(t, u)
}
