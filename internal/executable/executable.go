// Package executable finds the file that a program's next version is in, and keeps hold of it.
package executable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// running is the very file that this process runs, whatever has become of its name.
const running = "/proc/self/exe"

// Path returns where this program was started from: that is where its next version will be. Symbolic links are kept,
// since a deployment may turn them to another version. The path is absolute, so the working directory may change
// afterwards; call it before that.
//
// The name that the program was called by is followed as a shell would. If it leads to something else than what is
// running (it can be anything), the path is that of the running file.
func Path() (string, error) {
	if called := os.Args[0]; called != "" {
		path := called
		if !strings.Contains(called, "/") {
			path, _ = exec.LookPath(called)
		}
		if path, err := filepath.Abs(path); err == nil && isRunning(path) {
			return path, nil
		}
	}
	path, err := os.Executable()
	if errors.Is(err, fs.ErrNotExist) && hasRunning {
		err = fmt.Errorf("%w (is /proc mounted?)", err)
	}
	return path, err
}

func isRunning(path string) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	self, err := os.Stat(running)
	return err == nil && os.SameFile(there, self)
}

// Image is an executable file that stays the same, also when another takes its place.
type Image struct {
	path string
	file *os.File
}

// Open opens what is at a path now. That it can be executed is only known when it is.
func Open(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("executable: %w", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("executable %s is not a regular file", path)
	case info.Mode()&0o111 == 0:
		err = fmt.Errorf("executable %s may not be executed: its mode is %v", path, info.Mode())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Image{path, f}, nil
}

// RunningPath returns a path of the very file that this process runs, also when another has taken its place on disk
// meanwhile. If it has not, its own path is preferred, since ps shows that name.
func RunningPath() (string, error) {
	path, err := os.Executable()
	if !hasRunning {
		return path, err
	}
	if err != nil || !isRunning(path) {
		return running, nil
	}
	return path, nil
}

// Running returns the image that this process runs.
func Running() (*Image, error) {
	path, err := RunningPath()
	if err != nil {
		return nil, err
	}
	return Open(path)
}

// Adopt returns an image of a file that is open already.
func Adopt(path string, file *os.File) *Image { return &Image{path, file} }

// File returns the file, which stays the image's.
func (i *Image) File() *os.File { return i.file }

// Path returns a path to execute: the one that it was opened at, which ps shows, if it still leads there.
func (i *Image) Path() (string, error) {
	mine, err := i.file.Stat()
	if err != nil {
		return "", err
	}
	if there, err := os.Stat(i.path); err == nil && os.SameFile(there, mine) {
		return i.path, nil
	}
	return i.descriptorPath()
}

// Close closes the file.
func (i *Image) Close() error { return i.file.Close() }
