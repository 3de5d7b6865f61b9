//go:build !linux

package sockets

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// dial reports whether a process listens at the socket at a path, and calls ifNot if none does.
func dial(path string, ifNot func() error) (alive bool, err error) {
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return true, c.Close()
	case errors.Is(err, errRefused):
		return false, ifNot()
	}
	return false, fmt.Errorf("cannot tell whether a process is listening there: %w", err)
}
