//go:build unix

package sockets

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestFileIsAsWanted makes files under umasks that take some permissions, or none.
func TestFileIsAsWanted(t *testing.T) {
	dir := t.TempDir()
	for i, mask := range []int{0o022, 0o777, 0} {
		for _, mode := range []fs.FileMode{0o600, 0o660, 0o666, 0o777, 0o200} {
			before := syscall.Umask(mask)
			k := keeper(t)
			path := fmt.Sprintf("%s/%d-%o", dir, i, mode)
			k.files.Mode = mode
			_, err := k.Open(t.Context(), local(path), 1)
			syscall.Umask(before)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != fs.ModeSocket|mode {
				t.Errorf("umask %o: the file is %v, want %v", mask, info.Mode(), mode)
			}
			k.Close()
		}
	}
	isEmpty(t, dir+"/x")
}

func TestFileOwner(t *testing.T) {
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 65534, 65533
	}
	path := t.TempDir() + "/x"
	k := New(Files{Mode: 0o640, Owner: &Owner{uid, gid}})
	defer k.Close()
	open(t, k, local(path), 1)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); int(s.Uid) != uid || int(s.Gid) != gid || info.Mode().Perm() != 0o640 {
		t.Errorf("it belongs to %d:%d, %v; want %d:%d", s.Uid, s.Gid, info.Mode(), uid, gid)
	}
}

// TestFileOwnerRefused leaves nothing behind.
func TestFileOwnerRefused(t *testing.T) {
	if !asNobody(t) { // root may give files away
		return
	}
	k := New(Files{Mode: 0o640, Owner: &Owner{0, 0}})
	defer k.Close()
	path := t.TempDir() + "/x"
	if _, err := k.Open(t.Context(), local(path), 1); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("given to root: %v", err)
	}
	isEmpty(t, path)
}

// TestStale replaces what processes left that are gone.
func TestStale(t *testing.T) {
	path := t.TempDir() + "/x"
	for _, name := range []string{path, (&file{name: "x"}).hiddenName()} {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		stale, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		stale.(*net.UnixListener).SetUnlinkOnClose(false)
		stale.Close()
	}
	k := keeper(t)
	e := local(path)
	open(t, k, e, 1)
	if !reaches(t, "unix", path, listener(t, k, e, 0)) {
		t.Error("it cannot be reached")
	}
	k.Close()
	isEmpty(t, path)
}

// TestStaleLinks does not follow a symbolic link to a socket, dead or alive, nor to anything else.
func TestStaleLinks(t *testing.T) {
	dir := t.TempDir()
	dead, err := net.Listen("unix", dir+"/dead")
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	k := keeper(t)
	for _, target := range []string{"dead", "nothing", "/"} {
		link := dir + "/" + strings.ReplaceAll(target, "/", "root")
		link += "-link"
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Open(t.Context(), local(link), 1); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a link to %s: %v", target, err)
		}
		if _, err := os.Lstat(link); err != nil {
			t.Errorf("the link to %s: %v", target, err)
		}
	}
	if _, err := os.Lstat(dir + "/dead"); err != nil {
		t.Error(err)
	}
}

// TestInUse leaves alone what others listen on, even if they are so busy that nobody can connect.
func TestInUse(t *testing.T) {
	path := t.TempDir() + "/x"
	e := local(path)
	in := func(kind int, backlog int) (fd int) {
		fd, err := syscall.Socket(syscall.AF_UNIX, kind, 0)
		if err != nil {
			t.Skip(err)
		}
		syscall.CloseOnExec(fd)
		if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		if backlog >= 0 {
			if err := syscall.Listen(fd, backlog); err != nil {
				t.Fatal(err)
			}
		}
		return fd
	}
	refused := func(what string) {
		t.Helper()
		k := keeper(t)
		_, err := k.Open(t.Context(), e, 1)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "a process is listening there") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: the file: %v", what, err)
		}
	}
	fd := in(syscall.SOCK_STREAM, 0)
	refused("a socket")
	for range 3 { // which fills the queue
		refused("a busy socket")
	}
	syscall.Close(fd)
	os.Remove(path)
	if runtime.GOOS == "linux" {
		fd = in(syscall.SOCK_DGRAM, -1)
		refused("a socket for datagrams")
		syscall.Close(fd)
		os.Remove(path)
	}
}

// TestRelativePath stays where it was when the current directory changes.
func TestRelativePath(t *testing.T) {
	was, is := t.TempDir(), t.TempDir()
	t.Chdir(was)
	k := keeper(t)
	e := local("x")
	if info := open(t, k, e, 1); info.Address != "x" {
		t.Errorf("it listens on %q", info.Address)
	}
	t.Chdir(is)
	other, err := net.Listen("unix", "x")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if !reaches(t, "unix", filepath.Join(was, "x"), listener(t, k, e, 0)) {
		t.Error("it cannot be reached")
	}
	for range 2 {
		if err := k.QuiesceEndpoint(e); err != nil {
			t.Fatal(err)
		}
		isEmptyBut(t, was, ".x.quiesced")
		if err := handOut(k, e, 0); err != nil {
			t.Fatal(err)
		}
		isEmptyBut(t, was, "x")
	}
	k.Close()
	isEmpty(t, filepath.Join(was, "x"))
	isEmptyBut(t, is, "x")
}

// isEmptyBut checks that a directory has one file.
func isEmptyBut(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if len(entries) != 1 || entries[0].Name() != name || err != nil {
		t.Errorf("in the directory are %v, %v; want %s", entries, err, name)
	}
}

// TestLongPath listens where no address of a Unix socket reaches.
func TestLongPath(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it takes /proc")
	}
	dir := t.TempDir() + strings.Repeat("/0123456789", 10)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k := keeper(t)
	e := local(dir + "/x")
	if info := open(t, k, e, 1); info.Address != e.Address {
		t.Errorf("it listens on %s", info.Address)
	}
	if _, err := New(Files{}).Open(t.Context(), e, 1); !errors.Is(err, syscall.EADDRINUSE) ||
		!strings.Contains(err.Error(), "listen unix "+e.Address+": ") || strings.Contains(err.Error(), "/proc") {
		t.Errorf("opened again: %v", err)
	}
	t.Chdir(dir)
	if !reaches(t, "unix", "x", listener(t, k, e, 0)) {
		t.Error("it cannot be reached")
	}
	k.Close()
	isEmpty(t, e.Address)
	// The name itself is too long.
	_, err := New(Files{}).Open(t.Context(), local(dir+"/"+strings.Repeat("x", 108)), 1)
	if !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Error(err)
	}
}

// TestNotWritable says what is wrong with the directory.
func TestNotWritable(t *testing.T) {
	if !asNobody(t) { // root may write everywhere
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := New(Files{}).Open(t.Context(), local(dir+"/x"), 1)
	want := "listen unix " + dir + "/x: bind: permission denied (the directory must be writable for this user)"
	if !errors.Is(err, fs.ErrPermission) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestNotAllowed cannot tell whether a process listens that it may not connect to.
func TestNotAllowed(t *testing.T) {
	if !asNobody(t) { // root may connect to every socket
		return
	}
	path := t.TempDir() + "/x"
	open(t, keeper(t), local(path), 1)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err := New(Files{}).Open(t.Context(), local(path), 1)
	want := "listen unix " + path + ": cannot tell whether a process is listening there: connect: permission denied"
	if !errors.Is(err, fs.ErrPermission) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestOthersFile is not removed by Close.
func TestOthersFile(t *testing.T) {
	path := t.TempDir() + "/x"
	k := keeper(t)
	open(t, k, local(path), 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other := keeper(t)
	open(t, other, local(path), 1)
	k.Close()
	if !reaches(t, "unix", path, listener(t, other, local(path), 0)) {
		t.Error("the other's file is gone")
	}
}

// TestFileStays has the directory be closed to the master: the file stays, and nobody can connect all the same.
func TestFileStays(t *testing.T) {
	if !asNobody(t) { // root may write everywhere
		return
	}
	dir := t.TempDir()
	e := local(dir + "/x")
	k := keeper(t)
	open(t, k, e, 1)
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	err := k.QuiesceFinal(0)
	if runtime.GOOS != "linux" {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%v; want that it is not permitted", err)
		}
	} else if !isKeptOut("unix", e.Address) || err != nil {
		t.Errorf("a connection came in, and %v", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k.Close()
	isEmpty(t, e.Address)
}
