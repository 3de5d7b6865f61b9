//go:build !unix

package pack

import (
	"errors"
	"syscall"
)

func runAs(string) (*syscall.SysProcAttr, error) { return nil, errors.ErrUnsupported }
