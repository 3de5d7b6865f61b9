//go:build !linux

package sockets

import (
	"errors"
	"syscall"
)

func deferAccept(syscall.Conn, bool) (was bool) { return false }

func requests(_, _ bool) ([]request, error) { return nil, errors.ErrUnsupported }
