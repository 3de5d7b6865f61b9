//go:build !linux

package inplace

import (
	"errors"
	"os"
)

func execve(string, []string, []string, []*os.File) error { return errors.ErrUnsupported }
