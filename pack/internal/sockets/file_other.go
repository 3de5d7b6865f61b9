//go:build !unix

package sockets

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Here everything is done by path.

func openDirectory(string) (*os.File, error) { return nil, nil }

func (f *file) bindAddress() (string, error) { return f.path, nil }

func mark(int) bool { return false }

func (f *file) make(files Files, _ bool) (err error) {
	if f.id, _, err = f.stat(f.name); err != nil {
		return err
	}
	if files.Owner != nil {
		return errors.ErrUnsupported
	}
	return os.Chmod(f.path, files.Mode)
}

// at returns the path of a name in the directory.
func (f *file) lock(context.Context) (unlock func()) { return func() {} }

func (f *file) at(name string) string { return filepath.Join(filepath.Dir(f.path), name) }

// stat makes do with the time of the last change.
func (f *file) stat(name string) (FileID, fs.FileMode, error) {
	info, err := os.Lstat(f.at(name))
	if err != nil {
		return FileID{}, 0, err
	}
	return FileID{Inode: uint64(info.ModTime().UnixNano())}, info.Mode(), nil
}

func (f *file) alive(name string, _ FileID, ifNot func() error) (bool, error) {
	return dial(f.at(name), ifNot)
}

func (f *file) unlink(name string) error { return os.Remove(f.at(name)) }

func (f *file) rename(from, to string) error {
	if _, err := os.Lstat(f.at(to)); err == nil {
		return fs.ErrExist
	}
	return os.Rename(f.at(from), f.at(to))
}

func shutdown(syscall.Conn) error { return errors.ErrUnsupported }

// duplicate cannot: nobody hands descriptors over here.
func duplicate(f *os.File) (*os.File, error) {
	if f == nil {
		return nil, nil
	}
	return nil, errors.ErrUnsupported
}
