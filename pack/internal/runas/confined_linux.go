package runas

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
)

// startConfined starts a process, on CPUs if there are any, from a thread that has given up gaining privileges,
// which cannot be taken back: it ends afterwards.
func startConfined(cpus affinity.Set, cmd *exec.Cmd) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", err)
			return
		}
		if cpus.Len() > 0 {
			if _, err := affinity.Pin(cpus); err != nil {
				done <- err
				return
			}
		}
		done <- cmd.Start()
	}()
	return <-done
}

// hasACL reports whether a file has an access control list, acl(5), or may have.
func hasACL(path string) bool {
	_, err := unix.Getxattr(path, "system.posix_acl_access", nil)
	return err != unix.ENODATA && err != unix.EOPNOTSUPP
}

// areTooMany reports whether a process could not be started since there are too many (fork(2)).
func areTooMany(err error) bool { return errors.Is(err, unix.EAGAIN) }
