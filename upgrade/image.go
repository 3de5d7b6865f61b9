package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Image is an executable file that is held open: what was tried out is what is run, whatever takes its place on disk.
type Image struct {
	name string
	path string // to execute
	file *os.File
}

// OpenImage opens the executable that is at a path now. Its caller closes it. That the program can be run is only known
// when it has been: see [Preflight].
func OpenImage(path string) (*Image, error) {
	i, err := openImage(path)
	if err != nil {
		return nil, fmt.Errorf("upgrade: executable: %w", err)
	}
	return i, nil
}

// RunningImage opens the very file that this process runs, also if another has taken its place on disk. Its caller
// closes it. On Linux without /proc it opens what is at [Path] now.
func RunningImage() (*Image, error) {
	path, err := os.Executable()
	if runningFile != "" {
		path, err = runningFile, nil
	}
	if err != nil {
		return nil, fmt.Errorf("upgrade: executable: %w", err)
	}
	i, err := OpenImage(path)
	if errors.Is(err, fs.ErrNotExist) && path == runningFile && started.pathErr == nil {
		return OpenImage(started.path)
	}
	if err == nil && started.pathErr == nil {
		i.name = started.path
	}
	return i, err
}

func openImage(path string) (*Image, error) {
	f, err := openExecutable(path)
	if err != nil {
		return nil, err
	}
	i := &Image{name: path, file: f}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", path)
	case info.Mode()&0o111 == 0 && modeTells:
		err = fmt.Errorf("%s may not be executed: its mode is %v", path, info.Mode())
	default:
		i.path, err = pathOf(f, path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return i, nil
}

// Name returns the path that the image was opened at.
func (i *Image) Name() string { return i.name }

// Path returns a path to execute. On Linux it leads to the open file, /proc/self/fd/N, in this process and in a child
// of it, so that nothing can come between a check of the file and its execution. N is at least 16, and should be left
// alone by whoever starts a child with other files. Two consequences: the program finds out where it was started from
// by [Path], not from its first argument alone, and should call [NameProcess].
//
// A script ("#!") is run by its name, since its interpreter opens it by name. So is everything on other systems, and
// where there is no /proc.
func (i *Image) Path() string { return i.path }

// Close closes the file.
func (i *Image) Close() error { return i.file.Close() }

// check reports that what would be run by its name is not the file that was opened.
func (i *Image) check() error {
	mine, err := i.file.Stat()
	if err != nil {
		return fmt.Errorf("executable %s: %w", i.name, err)
	}
	there, err := os.Stat(i.path)
	if err != nil {
		return fmt.Errorf("executable: %w", err)
	}
	if !os.SameFile(mine, there) {
		return fmt.Errorf("executable %s was replaced meanwhile", i.name)
	}
	return nil
}

// byName returns the absolute form of a path that is executed by its name.
func byName(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", errors.Join(errors.New("the working directory is not known"), err)
	}
	return abs, nil
}
