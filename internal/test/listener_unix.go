//go:build unix

package test

import (
	"cmp"
	"net"
	"os"
	"syscall"
	"testing"
)

// CopyListener returns a listener of a copy of another's socket, as one that comes from another process is.
//
// net.FileListener of what the File method returns would make the socket block for a moment, for all who have it, and
// an Accept in that moment would wait for ever, deaf to Close.
func CopyListener(t testing.TB, l net.Listener) net.Listener {
	t.Helper()
	copied, err := copyListener(l)
	if err != nil {
		t.Fatal(err)
	}
	return copied
}

func copyListener(l net.Listener) (net.Listener, error) {
	rc, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	if cerr := rc.Control(func(own uintptr) { fd, err = syscall.Dup(int(own)) }); cerr != nil || err != nil {
		return nil, cmp.Or(cerr, err)
	}
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "copy") // which leaves it as it is
	defer f.Close()
	return net.FileListener(f)
}
