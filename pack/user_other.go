//go:build !unix

package pack

import (
	"errors"
	"syscall"
)

func runAs(spec string) (*syscall.SysProcAttr, error) {
	if spec == "" {
		return nil, nil
	}
	return nil, errors.ErrUnsupported
}

func changeOwner(string, string) error { return errors.ErrUnsupported }
