// Package runas starts processes as another user, on some CPUs, without the right to gain privileges.
package runas

import (
	"fmt"
	"os/exec"
	"sync"
	"syscall"

	"github.com/gopherpack/gopherpack/affinity"
)

// resolved are the users that were found already: a directory service may be slow, or be away for a while.
var resolved sync.Map

// Attributes returns what starts a process as "user" or "user:group", each a name or a number; nil for "".
func Attributes(spec string) (*syscall.SysProcAttr, error) {
	if spec == "" {
		return nil, nil
	}
	if a, ok := resolved.Load(spec); ok {
		return copyOf(a.(*syscall.SysProcAttr)), nil
	}
	a, err := resolve(spec)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", spec, err)
	}
	resolved.Store(spec, a)
	return copyOf(a), nil
}

func copyOf(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	b := *a
	return &b
}

// Owner returns the numbers of the user and the group of a spec that [Attributes] takes, but for "".
func Owner(spec string) (uid, gid int, err error) {
	a, err := Attributes(spec)
	if err != nil {
		return -1, -1, err
	}
	uid, gid = owner(a)
	return uid, gid, nil
}

// Start starts a process, on CPUs if there are any. If it is confined, neither it nor what it starts can gain
// privileges by executing a file (no_new_privs, prctl(2)); elsewhere than on Linux that says nothing.
func Start(cpus affinity.Set, cmd *exec.Cmd, confined bool) error {
	switch {
	case confined:
		return startConfined(cpus, cmd)
	case cpus.Len() > 0:
		return affinity.Do(cpus, cmd.Start)
	}
	return cmd.Start()
}
