//go:build !linux

package crash

import (
	"errors"
	"os"
)

// New returns an error: there are no files in memory on this system.
func New() (*os.File, error) { return nil, errors.ErrUnsupported }

// Use does nothing.
func Use(int) {}
