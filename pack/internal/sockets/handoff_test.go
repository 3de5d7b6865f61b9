//go:build unix

package sockets

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// export returns what a keeper hands on, as it comes out of JSON. The files are closed when the test ends.
func export(t *testing.T, k *Keeper, steering func(wire.Endpoint) (*os.File, error)) ([]State, []*os.File) {
	t.Helper()
	states, files, err := k.Export(nil, steering)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFiles(files) })
	text, err := json.Marshal(states)
	if err != nil {
		t.Fatal(err)
	}
	var read []State
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(read, states) {
		t.Errorf("states %+v became %+v", states, read)
	}
	return read, files
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// openPipe returns a file that stands for a steering's.
func openPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	return r
}

// TestHandoff has a keeper take over what another has, which closes nothing but its copies, as a program does that is
// replaced.
func TestHandoff(t *testing.T) {
	was := t.TempDir()
	t.Chdir(was)
	k := New(Files{Mode: 0o600})
	e, u := tcp("localhost:0"), local("x")
	open(t, k, e, 3)
	open(t, k, u, 3)
	if nameless("@") {
		open(t, k, abstract(t), 3)
	}
	before := k.Infos()
	first := openPipe(t)
	states, all, err := k.Export([]*os.File{first}, func(of wire.Endpoint) (*os.File, error) {
		if of == e {
			return openPipe(t), nil
		}
		return nil, nil
	})
	if err != nil || all[0] != first {
		t.Fatalf("%v, %v", all, err)
	}
	for _, s := range k.open {
		s.release()
	}
	t.Chdir(t.TempDir())

	next := keeper(t)
	steering, err := next.Import(states, all)
	if err != nil {
		t.Fatal(err)
	}
	closeFiles(all)
	if len(steering) != 1 || steering[e] == nil {
		t.Errorf("steering: %v", steering)
	} else if n, err := steering[e].Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("steering: read %d, %v", n, err)
	} else {
		steering[e].Close()
	}
	if got := next.Infos(); !slices.Equal(got, before) {
		t.Errorf("%+v became %+v", before, got)
	}
	for _, info := range before {
		var listeners []net.Listener
		for i := range info.Sockets {
			listeners = append(listeners, listener(t, next, info.Endpoint, i))
		}
		address := info.Address
		if address == "x" {
			address = filepath.Join(was, "x")
		}
		if !reaches(t, info.Endpoint.Network, address, listeners...) {
			t.Errorf("%s cannot be reached", info.Endpoint)
		}
	}
	next.Close()
	isEmpty(t, filepath.Join(was, "x"))
}

// TestHandoffOfQuiesced has the next keeper undo what the first did.
func TestHandoffOfQuiesced(t *testing.T) {
	k := keeper(t)
	path := t.TempDir() + "/x"
	e := local(path)
	open(t, k, e, 1)
	if err := k.QuiesceEndpoint(e); err != nil {
		t.Fatal(err)
	}
	states, files := export(t, k, nil)
	next := keeper(t)
	if _, err := next.Import(states, files); err != nil {
		t.Fatal(err)
	}
	if !reaches(t, "unix", path, listener(t, next, e, 0)) {
		t.Error("it cannot be reached")
	}
}

// TestExportFails leaves no descriptor behind, which TestMain looks at, and what it was given as it was.
func TestExportFails(t *testing.T) {
	k := keeper(t)
	e, u := tcp("localhost:0"), local(t.TempDir()+"/x")
	open(t, k, e, 3)
	open(t, k, u, 3)
	oops := errors.New("oops")
	given := make([]*os.File, 0, 100)
	given = append(given, openPipe(t))
	defer closeFiles(given)
	states, files, err := k.Export(given, func(of wire.Endpoint) (*os.File, error) {
		if of == u {
			return nil, oops
		}
		return openPipe(t), nil
	})
	if !errors.Is(err, oops) || !strings.Contains(err.Error(), u.String()) || states != nil ||
		len(files) != 1 || files[0] != given[0] {
		t.Errorf("%v, %v, %v", states, files, err)
	}
	if given[:2][1] != nil {
		t.Error("it wrote behind the files that it was given")
	}
}

// TestImportFails takes nothing.
func TestImportFails(t *testing.T) {
	k := keeper(t)
	e, u := tcp("localhost:0"), local(t.TempDir()+"/x")
	open(t, k, e, 2)
	open(t, k, u, 2)
	states, files := export(t, k, func(wire.Endpoint) (*os.File, error) { return openPipe(t), nil })
	for _, tt := range []struct {
		change func(s []State, f []*os.File) []State
		want   string
	}{
		{func(s []State, _ []*os.File) []State { return append(s, s[1]) }, "it is there twice"},
		{func(s []State, _ []*os.File) []State { s[0].Listeners = nil; return s }, "it has 0 sockets"},
		{func(s []State, _ []*os.File) []State { s[0].Shared = true; return s }, "it has 2 sockets, shared true"},
		{func(s []State, _ []*os.File) []State { s[1].Shared = false; return s }, "a socket of another kind"},
		{func(s []State, _ []*os.File) []State { s[1].Listeners[0] = -1; return s }, "no descriptor -1"},
		{func(s []State, f []*os.File) []State { s[1].Listeners[0] = len(f); return s }, "there is no descriptor"},
		{func(s []State, f []*os.File) []State { f[s[1].Listeners[0]] = nil; return s }, "there is no descriptor"},
		{func(s []State, _ []*os.File) []State { s[1].Steering = 99; return s }, "the steering of " + u.String() + ": there is no"},
		{func(s []State, _ []*os.File) []State { s[1].Directory = -1; return s }, "there is no descriptor -2"},
		{func(s []State, _ []*os.File) []State { s[1].Listeners = s[0].Listeners[:1]; return s }, "another kind: tcp"},
		{func(s []State, _ []*os.File) []State { s[0].Listeners[1] = s[1].Listeners[0]; return s }, "another kind: unix"},
		{func(s []State, _ []*os.File) []State { s[0].Listeners[1] = s[0].Steering - 1; return s }, "over " + e.String()},
	} {
		var changed []State
		for _, s := range states {
			s.Listeners = slices.Clone(s.Listeners)
			changed = append(changed, s)
		}
		files := slices.Clone(files)
		changed = tt.change(changed, files)
		next := keeper(t)
		steering, err := next.Import(changed, files)
		if err == nil || !strings.Contains(err.Error(), tt.want) || steering != nil || next.Infos() != nil {
			t.Errorf("%v, %v; want %q", steering, err, tt.want)
		}
	}
	if _, err := k.Import(states, files); err == nil {
		t.Error("a keeper that has sockets took others over")
	}
	closed := New(Files{})
	closed.Close()
	if _, err := closed.Import(states, files); err == nil {
		t.Error("a keeper that is closed took sockets over")
	}
	// All this was nothing to those who go on.
	if !reaches(t, "unix", u.Address, listener(t, k, u, 0)) {
		t.Error("the Unix socket cannot be reached any more")
	}
}
