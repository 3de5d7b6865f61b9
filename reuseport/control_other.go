//go:build (!unix && !windows) || solaris || illumos

package reuseport

import (
	"errors"
	"syscall"
)

// go-reuseport does not compile on Solaris, for which x/sys lacks the option, and does nothing, without an error, on
// Plan 9 and WebAssembly.

func shareTCP(string, string, syscall.RawConn) error       { return errors.ErrUnsupported }
func shareTCPDialer(string, string, syscall.RawConn) error { return errors.ErrUnsupported }
func setReusePort(int, int) error                          { return errors.ErrUnsupported }
