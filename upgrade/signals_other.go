//go:build !linux

package upgrade

import (
	"errors"
	"os"
	"syscall"
)

func setActions(_, _ []os.Signal) (uint64, func(), error) { return 0, nil, errors.ErrUnsupported }
func stopIgnoring(uint64)                                 {}
func handling([]os.Signal) bool                           { return false }
func pending([]os.Signal) bool                            { return false }

const otherSignal = syscall.SIGTERM
