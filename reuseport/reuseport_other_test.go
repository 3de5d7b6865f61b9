//go:build !linux

package reuseport_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/reuseport"
)

func TestUnsupported(t *testing.T) {
	_, err := reuseport.ListenGroup(t.Context(), "tcp", "localhost:0", 2)
	_, perr := reuseport.ListenPacketGroup(t.Context(), "udp", "localhost:0", 2)
	l, lerr := net.Listen("tcp", "localhost:0")
	if lerr != nil {
		t.Fatal(lerr)
	}
	defer l.Close()
	_, cpu := reuseport.IncomingCPU(l.(syscall.Conn))
	attach := reuseport.AttachCPU(l.(syscall.Conn), map[int]int{0: 0})
	limit := reuseport.Limit(l.(syscall.Conn), 1)
	quiesce, resume := reuseport.Quiesce(l.(syscall.Conn)), reuseport.Resume(l.(syscall.Conn))
	for _, err := range []error{err, perr, cpu, attach, limit, quiesce, resume, reuseport.Detach(l.(syscall.Conn))} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v; want errors.ErrUnsupported", err)
		}
	}
}
