//go:build !unix

package runas

import (
	"errors"
	"io/fs"
	"syscall"
)

func resolve(string) (account, error)                   { return account{}, errors.ErrUnsupported }
func owner(*syscall.SysProcAttr) (uid, gid int)         { return -1, -1 }
func executable(*syscall.SysProcAttr, fs.FileInfo) bool { return true }
func ownerOf(fs.FileInfo) string                        { return "" }
