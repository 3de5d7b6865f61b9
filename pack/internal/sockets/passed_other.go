//go:build !linux

package sockets

import "errors"

// cannotShare returns why others cannot listen beside a socket that somebody else has opened.
func cannotShare(socket) error { return errors.ErrUnsupported }
