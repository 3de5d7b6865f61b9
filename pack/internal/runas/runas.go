// Package runas starts processes as another user, on some CPUs, without the right to gain privileges.
package runas

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/gopherpack/gopherpack/affinity"
)

// account is a user, and what its processes are started with.
type account struct {
	attr       *syscall.SysProcAttr
	name, home string // "" if the user is but a number
}

// resolved are the users that were found already: a directory service may be slow, or be away for a while.
var resolved sync.Map

func find(spec string) (account, error) {
	if a, ok := resolved.Load(spec); ok {
		return a.(account), nil
	}
	a, err := resolve(spec)
	if err != nil {
		return account{}, fmt.Errorf("user %q: %w", spec, err)
	}
	resolved.Store(spec, a)
	return a, nil
}

// Attributes returns what starts a process as "user" or "user:group", each a name or a number; nil for "".
func Attributes(spec string) (*syscall.SysProcAttr, error) {
	if spec == "" {
		return nil, nil
	}
	a, err := find(spec)
	if err != nil {
		return nil, err
	}
	attr := *a.attr
	return &attr, nil
}

// Environ returns an environment with the HOME, USER and LOGNAME of the user of a spec, or without, if it has none. The
// slice may be the given one; for "" it is.
func Environ(spec string, environ []string) ([]string, error) {
	if spec == "" {
		return environ, nil
	}
	a, err := find(spec)
	if err != nil {
		return nil, err
	}
	var env []string
	for _, entry := range environ {
		switch name, _, _ := strings.Cut(entry, "="); name {
		case "HOME", "USER", "LOGNAME":
		default:
			env = append(env, entry)
		}
	}
	if a.name != "" {
		env = append(env, "USER="+a.name, "LOGNAME="+a.name)
	}
	if a.home != "" {
		env = append(env, "HOME="+a.home)
	}
	return env, nil
}

// MayExecute returns an error if it is certain that the user of a spec has no right to execute a file: its mode says
// so, and there is no access control list that may say otherwise.
func MayExecute(spec, path string) error {
	a, err := find(spec)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if executable(a.attr, info) || hasACL(path) {
		return nil
	}
	return fmt.Errorf("user %q may not execute %s: its mode is %v, its owner %s", spec, nameOf(path), info.Mode(),
		ownerOf(info))
}

// nameOf returns what a path such as /proc/self/fd/20 leads to.
func nameOf(path string) string {
	if name, err := os.Readlink(path); err == nil && strings.HasPrefix(path, "/proc/") {
		return name
	}
	return path
}

// Named returns an error of starting a process with the name of its file, where that was started by a number, and with
// what to do if there were too many.
func Named(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		e.Path = nameOf(e.Path)
	}
	if areTooMany(err) {
		return fmt.Errorf("%w (no more processes or threads may be started: raise pids.max of the container, TasksMax= of "+
			"the unit, or ulimit -u)", err)
	}
	return err
}

// Explain says of an error of starting a process as the user of a spec what was not allowed, if that is so.
func Explain(spec string, cmd *exec.Cmd, err error) error {
	switch {
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("this process may not become user %q (CAP_SETUID, CAP_SETGID): %w", spec, err)
	case errors.Is(err, fs.ErrPermission) && cmd.Dir != "":
		return fmt.Errorf("user %q may not execute %s, or not enter the directory %s: %w", spec, nameOf(cmd.Path), cmd.Dir,
			err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("user %q may not execute %s: %w", spec, nameOf(cmd.Path), err)
	}
	return err
}

// Owner returns the numbers of the user and the group of a spec that [Attributes] takes, but for "".
func Owner(spec string) (uid, gid int, err error) {
	a, err := find(spec)
	if err != nil {
		return -1, -1, err
	}
	uid, gid = owner(a.attr)
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
