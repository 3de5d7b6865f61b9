//go:build !unix || aix

package upgrade

import (
	"errors"
	"os"
)

func duplicate(*os.File, int) (*os.File, error) { return nil, errors.ErrUnsupported }
func closeOnExec(int) bool                      { return false }
func isGone(error) bool                         { return false }
