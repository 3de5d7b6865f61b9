package sockets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// file is the file of a Unix socket. Who may write its directory can put another in its place at any time, such as a
// symbolic link to a file of root's. So nothing is done by path, but through descriptors: of the directory, which is
// looked up once and kept for life, and where the system can, of the file itself. What is found under the name is
// looked at before it is touched.
//
// While the socket is open, even if its file was removed, the file system gives its number to no other file.
type file struct {
	path   string   // as the user wrote it
	name   string   // in the directory
	dir    *os.File // nil where there are no descriptors of directories
	id     FileID
	hidden bool // it has its other name
}

// hiddenName returns the other name of a file, which it has while nobody shall connect.
func (f *file) hiddenName() string { return "." + f.name + ".quiesced" }

// takenError is that a process listens at a file.
type takenError struct{ id FileID }

func (e *takenError) Error() string { return "a process is listening there: " + e.Unwrap().Error() }
func (e *takenError) Unwrap() error { return errInUse }

// errSwapped is that what was made has been replaced before it was ready.
var errSwapped = errors.New("somebody else has put another file in the place of the socket")

// openUnix opens a Unix socket, in place of one whose process is gone.
func (k *Keeper) openUnix(ctx context.Context, path string) (*set, error) {
	if ctx.Err() != nil { // ListenConfig notices that only when it has to wait for something
		return nil, fmt.Errorf("listen unix %s: %w", path, context.Cause(ctx))
	}
	if nameless(path) {
		l, err := k.listenUnix(ctx, path, path, nil)
		if err != nil {
			return nil, err
		}
		return &set{listeners: []socket{l}, shared: true}, nil
	}
	s, err := k.openFile(ctx, path)
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return nil, op
	}
	if err != nil {
		return nil, fmt.Errorf("listen unix %s: %w", path, err)
	}
	return s, nil
}

// nameless reports whether a Unix socket has no file: Linux has abstract names, and gives one to a socket that has
// none.
func nameless(path string) bool {
	linux := runtime.GOOS == "linux" || runtime.GOOS == "android"
	return path == "" || linux && (path[0] == '@' || path[0] == 0)
}

func (k *Keeper) openFile(ctx context.Context, path string) (_ *set, err error) {
	dir, name := filepath.Split(path)
	if name == "" || name == "." || name == ".." {
		return nil, fmt.Errorf("it names a directory: %w", syscall.EISDIR)
	}
	f := &file{path: path, name: name}
	if f.dir, err = openDirectory(dir); err != nil {
		return nil, err
	}
	s := &set{shared: true, file: f}
	defer f.lock(ctx)()
	defer func() {
		if err != nil {
			f.remove()
			s.release()
		}
	}()
	if err := f.removeStale(); err != nil {
		return nil, err
	}
	address, err := f.bindAddress()
	if err != nil {
		return nil, err
	}
	marked := false
	l, err := k.listenUnix(ctx, address, path, func(fd int) { marked = mark(fd) })
	if err != nil {
		return nil, err
	}
	s.listeners = []socket{l}
	return s, f.make(k.files, marked)
}

// listenUnix listens on an address that is called by another name in errors.
func (k *Keeper) listenUnix(ctx context.Context, address, name string, prepare func(fd int)) (
	socket, error,
) {
	control := k.control()
	config := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		if prepare != nil {
			if err := c.Control(func(fd uintptr) { prepare(int(fd)) }); err != nil {
				return err
			}
		}
		if control != nil {
			return control(network, name, c)
		}
		return nil
	}}
	l, err := config.Listen(ctx, "unix", address)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			op.Addr = &net.UnixAddr{Net: "unix", Name: name}
		}
		return nil, err
	}
	u := l.(*net.UnixListener)
	keepFile(u) // a worker's copy must not, and this process looks first
	return keep(u)
}

// removeStale removes a Unix socket on which nobody listens any more, and what a process left that was killed while
// the file had its other name.
func (f *file) removeStale() error {
	if err := f.removeStaleAt(f.name); err != nil {
		return err
	}
	f.removeStaleAt(f.hiddenName())
	return nil
}

func (f *file) removeStaleAt(name string) error {
	id, mode, err := f.stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case mode.Type() != fs.ModeSocket:
		return fmt.Errorf("there is a file that is not a socket: %w", fs.ErrExist)
	}
	alive, err := f.alive(name, id, func() error { return f.removeAt(name, id) })
	switch {
	case alive:
		return &takenError{id}
	case errors.Is(err, fs.ErrNotExist):
		return nil // somebody else has removed it
	}
	return err
}

// remove removes the file, unless somebody else has put another in its place.
func (f *file) remove() error {
	if f.id == (FileID{}) {
		return nil
	}
	name := f.name
	if f.hidden {
		name = f.hiddenName()
	}
	if err := f.removeAt(name, f.id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.id, f.hidden = FileID{}, false
	return nil
}

// removeAt removes a file, if it has that name. Another may come in its place between the look and the removal, but
// who can do that could have removed it as well.
func (f *file) removeAt(name string, id FileID) error {
	if now, _, err := f.stat(name); err != nil || now != id {
		return err
	}
	return f.unlink(name)
}

// hide gives the file its other name, if it is still there.
func (f *file) hide() error {
	now, _, err := f.stat(f.name)
	if f.hidden || errors.Is(err, fs.ErrNotExist) || err == nil && now != f.id {
		return nil
	}
	if err == nil {
		f.removeStaleAt(f.hiddenName())
		err = f.rename(f.name, f.hiddenName())
	}
	f.hidden = err == nil
	return err
}

// inPlace reports whether who connects to the path comes to this socket, as far as one can tell: whether the file is
// there, and the directory, which can be removed and made anew as well.
func (f *file) inPlace() bool {
	if f.hidden {
		return true
	}
	now, _, err := f.stat(f.name)
	if err == nil && now == f.id && filepath.IsAbs(f.path) {
		again := *f
		if again.dir, err = openDirectory(filepath.Dir(f.path)); err == nil {
			defer again.release()
			now, _, err = again.stat(f.name)
		}
	}
	return err == nil && now == f.id || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// show gives the file its own name again, if that is free.
func (f *file) show() error {
	if !f.hidden {
		return nil
	}
	if now, _, err := f.stat(f.hiddenName()); err != nil || now != f.id {
		return errors.Join(errSwapped, err)
	}
	if err := f.rename(f.hiddenName(), f.name); err != nil {
		return err
	}
	f.hidden = false
	return nil
}

func (f *file) release() {
	if f.dir != nil {
		f.dir.Close()
	}
}
