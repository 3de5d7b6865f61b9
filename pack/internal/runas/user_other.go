//go:build !unix

package runas

import (
	"errors"
	"syscall"
)

func resolve(string) (*syscall.SysProcAttr, error) { return nil, errors.ErrUnsupported }
func owner(*syscall.SysProcAttr) (uid, gid int)    { return -1, -1 }
