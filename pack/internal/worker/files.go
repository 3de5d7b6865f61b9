package worker

import (
	"errors"
	"fmt"

	"github.com/gopherpack/gopherpack/rlimit"
)

// RaiseFiles gives this process the limit of open files that it must have, or, for 0, as much as it may.
func RaiseFiles(files uint64) error {
	const plenty = 1 << 30 // what unlimited is cut down to; systems refuse more in various ways
	now, err := rlimit.Get(rlimit.NOFILE)
	switch {
	case err != nil && (files == 0 || errors.Is(err, errors.ErrUnsupported)):
		return nil // a filter of system calls may refuse even to read it
	case err != nil:
		return err
	}
	// The Go runtime has raised it already, to one less than the hard limit, and gives programs that this one starts the
	// former one, until somebody sets a limit. Many look at every descriptor that they might have.
	if now.Soft >= files && (files > 0 || now.Soft >= min(now.Hard, plenty)-1) {
		return nil
	}
	if files == 0 {
		// As much as there is, and no reason to fail: on some systems the hard limit cannot be reached.
		rlimit.Raise(rlimit.NOFILE, min(now.Hard, plenty))
		return nil
	}
	if _, err = rlimit.Raise(rlimit.NOFILE, files); err != nil {
		return fmt.Errorf("%w (raise it with ulimit -Hn or LimitNOFILE=, or lower Config.Files)", err)
	}
	return nil
}
