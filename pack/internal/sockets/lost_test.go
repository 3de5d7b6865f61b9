//go:build unix

package sockets

import (
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestLost has the file of a Unix socket be taken away in every way: the socket is opened anew, and what is queued on the
// old one is served.
func TestLost(t *testing.T) {
	for name, lose := range map[string]func(dir string) error{
		"removed": func(dir string) error { return os.Remove(dir + "/x") },
		"renamed": func(dir string) error { return os.Rename(dir+"/x", dir+"/y") },
		"replaced": func(dir string) error {
			if err := os.Remove(dir + "/x"); err != nil {
				return err
			}
			stale, err := net.Listen("unix", dir+"/x")
			if err == nil {
				stale.(*net.UnixListener).SetUnlinkOnClose(false)
				err = stale.Close()
			}
			return err
		},
		"directory removed": func(dir string) error {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			return os.Mkdir(dir, 0o700)
		},
		"directory replaced": func(dir string) error {
			if err := os.Rename(dir, dir+"-before"); err != nil {
				return err
			}
			return os.Mkdir(dir, 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/run"
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			k := keeper(t)
			e := local(dir + "/x")
			open(t, k, e, 1)
			before := listener(t, k, e, 0)
			queued, err := net.Dial("unix", e.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer queued.Close()
			if k.Lost() || len(k.GiveUpLost()) != 0 {
				t.Error("it is lost already")
			}
			if err := lose(dir); err != nil {
				t.Fatal(err)
			}
			if !k.Lost() {
				t.Error("nobody notices")
			}
			old := k.GiveUpLost()[e]
			if old == (wire.Endpoint{}) || k.Lost() || len(k.GiveUpLost()) != 0 {
				t.Errorf("it is %v now", old)
			}
			open(t, k, e, 1)
			if !reaches(t, "unix", e.Address, listener(t, k, e, 0)) {
				t.Error("it cannot be reached")
			}
			if err := k.QuiesceEndpoint(old); err != nil && runtime.GOOS == "linux" {
				t.Error(err)
			}
			if name == "renamed" && runtime.GOOS == "linux" && !isKeptOut("unix", dir+"/y") {
				t.Error("by its new name one comes to the old socket")
			}
			if c, err := before.Accept(); err != nil {
				t.Errorf("what was queued: %v", err)
			} else {
				c.Close()
			}
			k.Keep(map[wire.Endpoint]bool{e: true})
			if !reaches(t, "unix", e.Address, listener(t, k, e, 0)) {
				t.Error("it cannot be reached when the old one is closed")
			}
		})
	}
}
