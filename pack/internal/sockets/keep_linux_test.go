package sockets

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestNotPolled wants no connection to wake the process that keeps the sockets: they are not registered with epoll(7),
// neither when they are opened nor when they are taken over.
func TestNotPolled(t *testing.T) {
	k := keeper(t)
	own := wire.Endpoint{Network: "tcp", Address: "localhost:0", Own: true}
	for _, e := range []wire.Endpoint{tcp("localhost:0"), local(t.TempDir() + "/x"), local("@"), own} {
		open(t, k, e, 2)
	}
	if err := k.Grow(t.Context(), 3, nil); err != nil {
		t.Fatal(err)
	}
	notPolled(t, k)
	states, files, err := k.Export(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	next := keeper(t)
	_, err = next.Import(states, files)
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	notPolled(t, next)
}

func notPolled(t *testing.T, k *Keeper) {
	t.Helper()
	polled := polledByRuntime(t)
	if polled == "" {
		t.Error("nothing is polled") // by the netpoller there is an eventfd, at least
	}
	for e, s := range k.open {
		for _, l := range s.listeners {
			rc, err := l.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			rc.Control(func(fd uintptr) {
				if strings.Contains(polled, fmt.Sprintf("tfd: %8d ", fd)) {
					t.Errorf("%s: the socket is polled", e)
				}
			})
		}
	}
}

// polledByRuntime returns what epoll descriptors of this process are about.
func polledByRuntime(t *testing.T) (all string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "anon_inode:[eventpoll]" {
			info, err := os.ReadFile("/proc/self/fdinfo/" + filepath.Base(fd))
			if err != nil {
				t.Fatal(err)
			}
			all += string(info)
		}
	}
	return all
}
