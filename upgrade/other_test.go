//go:build !unix || aix

package upgrade

import (
	"errors"
	"net"
	"os"
	"testing"
)

// TestUnsupported has a program that can be upgraded elsewhere run where it cannot.
func TestUnsupported(t *testing.T) {
	path := t.TempDir() + "/server"
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, inPlace := range []bool{false, true} {
		ForgetNew()
		u, err := New(&Config{InPlace: inPlace, Path: path, PIDFile: path + ".pid"})
		if err != nil {
			t.Fatal(err)
		}
		l, err := u.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := u.Ready(); err != nil {
			t.Fatal(err)
		}
		if err := u.Upgrade(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("in place: %v: %v", inPlace, err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := errors.Join(u.Close(), u.Finish()); err != nil {
			t.Error(err)
		}
	}
}
