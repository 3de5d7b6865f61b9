//go:build !unix

package sockets

import (
	"errors"
	"os"
	"syscall"
)

func copyDescriptor(int, string) (*os.File, error)  { return nil, errors.ErrUnsupported }
func closeDescriptor(int)                           {}
func isServable(*os.File) (packets bool, err error) { return false, errors.ErrUnsupported }
func isV6Only(*os.File) bool                        { return false }
func isV6OnlyConn(syscall.RawConn) bool             { return false }
