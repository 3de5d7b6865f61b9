//go:build !linux

package upgrade

import (
	"errors"
	"os"
)

func setActions(_, _ []os.Signal) (uint64, func(), error) { return 0, nil, errors.ErrUnsupported }
func stopIgnoring(uint64)                                 {}
