//go:build unix && !linux

package sockets

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// These systems have no descriptors of files that cannot be opened, such as sockets. So the file is handled by its
// name in the directory, without following a symbolic link; but another file may come between a look and the touch.

// refuses would be what poll(2) says of a socket that was shut down.
const refuses = 0

// openDirectory opens a directory for life; "" is the current one.
func openDirectory(path string) (*os.File, error) {
	if path == "" {
		path = "."
	}
	return os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

func (f *file) bindAddress() (string, error) { return f.path, nil }

func mark(int) bool { return false }

func (f *file) lock(context.Context) (unlock func()) { return func() {} }

// make gives the file, which has just been bound, its permissions and its owner.
func (f *file) make(files Files, _ bool) error {
	return f.at(func(dir int) error {
		id, mode, err := f.stat(f.name)
		if err != nil {
			return err
		}
		if mode.Type() != fs.ModeSocket {
			return errSwapped
		}
		f.id = id
		if err := unix.Fchmodat(dir, f.name, uint32(files.Mode.Perm()), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return os.NewSyscallError("fchmodat", err)
		}
		if files.Owner == nil {
			return nil
		}
		return os.NewSyscallError("fchownat",
			unix.Fchownat(dir, f.name, files.Owner.UID, files.Owner.GID, unix.AT_SYMLINK_NOFOLLOW))
	})
}

// stat returns which file has a name in the directory now.
func (f *file) stat(name string) (id FileID, mode fs.FileMode, err error) {
	err = f.at(func(dir int) error {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: f.path, Err: err}
		}
		id = FileID{uint64(st.Dev), uint64(st.Ino)}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			mode = fs.ModeSocket
		}
		return nil
	})
	return id, mode, err
}

// alive reports whether a process listens at the socket that has a name in the directory, and calls ifNot if none
// does. It connects by path.
func (f *file) alive(name string, _ FileID, ifNot func() error) (bool, error) {
	return dial(filepath.Join(filepath.Dir(f.path), name), ifNot)
}

func (f *file) unlink(name string) error {
	return f.at(func(dir int) error { return os.NewSyscallError("unlinkat", unix.Unlinkat(dir, name, 0)) })
}

// rename gives a file another name, if that is free.
func (f *file) rename(from, to string) error {
	if _, _, err := f.stat(to); err == nil {
		return os.NewSyscallError("renameat", unix.EEXIST)
	}
	return f.at(func(dir int) error { return os.NewSyscallError("renameat", unix.Renameat(dir, from, dir, to)) })
}

// shutdown cannot: it would not do what it does on Linux.
func shutdown(syscall.Conn) error { return errors.ErrUnsupported }

// disconnect does nothing: here a socket that was connected is lost.
func disconnect(int) {}
