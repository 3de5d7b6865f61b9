//go:build !unix

package reuseport

import "errors"

func setReusePort(int) error { return errors.ErrUnsupported }
