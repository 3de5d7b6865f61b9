//go:build !linux

package upgrade

import (
	"errors"
	"os"
)

func canBecome() error              { return errors.ErrUnsupported }
func memoryFile() (*os.File, error) { return nil, errors.ErrUnsupported }
func startTime() (uint64, error)    { return 0, errors.ErrUnsupported }

func execve(string, []string, []string, []*os.File, string) error { return errors.ErrUnsupported }
