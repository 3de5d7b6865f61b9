//go:build !linux

package sockets

import (
	"errors"
	"syscall"
)

func deferAccept(syscall.Conn, bool) (was bool) { return false }

func requests() ([]request, error) { return nil, errors.ErrUnsupported }
