//go:build unix

package sigctl

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// catchable reports which of some signals cannot be caught (signal(7)).
func catchable(signals []os.Signal) error {
	for _, s := range signals {
		if s == syscall.SIGKILL || s == syscall.SIGSTOP {
			return fmt.Errorf("signal %q cannot be caught", s)
		}
	}
	return nil
}

// staysIgnored reports whether a signal was ignored when the program began, and is to stay so.
func staysIgnored(s os.Signal) bool {
	return s == syscall.SIGHUP && signal.Ignored(s)
}

// raise sends this process a signal.
func raise(s os.Signal) {
	if s, ok := s.(syscall.Signal); ok {
		syscall.Kill(syscall.Getpid(), s)
	}
}
