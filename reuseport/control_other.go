//go:build !unix

package reuseport

import "errors"

func setReusePort(int, int) error { return errors.ErrUnsupported }
