//go:build !unix || aix

package upgrade

import (
	"errors"
	"os"
	"syscall"
)

const handsOn = false

func duplicate(syscall.Conn, string, int) (*os.File, error) { return nil, errors.ErrUnsupported }
func closeOnExec(int) bool                                  { return false }
func identify(os.FileInfo) fileID                           { return fileID{} }
func isGone(error) bool                                     { return false }
