//go:build !unix

package scoreboard

import (
	"errors"
	"os"
)

// Map returns an error: there is no board on this system.
func Map(*os.File, int) (*Board, error) { return nil, errors.ErrUnsupported }
