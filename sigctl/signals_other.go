//go:build !unix

package sigctl

import (
	"fmt"
	"os"
)

// catchable reports which of some signals cannot be caught.
func catchable(signals []os.Signal) error {
	for _, s := range signals {
		if s == os.Kill {
			return fmt.Errorf("signal %q cannot be caught", s)
		}
	}
	return nil
}

func staysIgnored(os.Signal) bool { return false }

// raise does what a signal to stop does by default.
func raise(os.Signal) { os.Exit(2) }
