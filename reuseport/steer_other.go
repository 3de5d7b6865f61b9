//go:build !linux

package reuseport

import (
	"errors"
	"net"

	"golang.org/x/net/bpf"
)

// Other systems have the option, but hand everything to one of the sockets.
const spreads = false

func attach(int, []bpf.RawInstruction) error  { return errors.ErrUnsupported }
func detach(int) error                        { return errors.ErrUnsupported }
func incomingCPU(int) (int, error)            { return -1, errors.ErrUnsupported }
func quiesce(int, []bpf.RawInstruction) error { return errors.ErrUnsupported }
func deafen(int) error                        { return nil }
func hear(int, *net.UDPAddr) error            { return nil }
func resume(int) error                        { return errors.ErrUnsupported }
func isPacket(int) bool                       { return false }
