package worker

import (
	"errors"
	"fmt"

	"github.com/gopherpack/gopherpack/rlimit"
)

// RaiseFiles gives this process the limit of open files that it must have, or, for 0, as much as it may.
//
// Where the Go runtime has raised it far enough, which it does to one below the hard limit, it is left alone: the
// programs that a handler starts have what the pack was started with, until this process sets a limit by itself.
func RaiseFiles(files uint64) error {
	now, err := rlimit.Get(rlimit.NOFILE)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case files == 0 && now.Soft+1 < now.Hard:
		rlimit.RaiseUpTo(rlimit.NOFILE, now.Hard) // and no reason to fail
	case files > now.Soft:
		if _, err = rlimit.Raise(rlimit.NOFILE, files); err != nil {
			return fmt.Errorf("%w (raise it with ulimit -Hn or LimitNOFILE=, or lower Config.Files)", err)
		}
	}
	return nil
}
