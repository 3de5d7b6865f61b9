//go:build !linux

package inplace

import (
	"errors"
	"os"
)

func defaultSignals([]os.Signal) (func(), error) { return nil, errors.ErrUnsupported }

func execve(string, []string, []string, []*os.File) error { return errors.ErrUnsupported }
