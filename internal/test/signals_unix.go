//go:build unix

package test

import (
	"os"
	"os/signal"
	"syscall"
)

// DefaultSignals has the programs that a test starts begin with the effect that signals have by default, also where the
// test runs in the background of a script, which has INT and QUIT ignored.
func DefaultSignals() {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s) // without effect here, as before; what is caught is not inherited
		}
	}
}
