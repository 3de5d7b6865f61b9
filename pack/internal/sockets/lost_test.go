//go:build unix

package sockets

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestLost has the file of a Unix socket be taken away in every way: the socket is opened anew, and what is queued on
// the old one is served.
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
			if k.Lost() || k.Renew(t.Context()) != nil {
				t.Error("it is lost already")
			}
			if err := lose(dir); err != nil {
				t.Fatal(err)
			}
			if !k.Lost() {
				t.Error("nobody notices")
			}
			renewed := k.Renew(t.Context())
			if len(renewed) != 1 || renewed[0].Err != nil || renewed[0].Info != open(t, k, e, 1) || k.Lost() {
				t.Fatalf("%+v", renewed)
			}
			old := renewed[0].Before
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

// TestLostForGood has something be in the place of the file that cannot be replaced.
func TestLostForGood(t *testing.T) {
	k := keeper(t)
	e := local(t.TempDir() + "/x")
	info := open(t, k, e, 1)
	if err := os.Remove(e.Address); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.Address, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := k.Renew(t.Context())
	if len(r) != 1 || !errors.Is(r[0].Err, fs.ErrExist) || !slices.Equal(k.Infos(), []Info{info}) || !k.Lost() {
		t.Errorf("%+v; open are %+v", r, k.Infos())
	}
}
