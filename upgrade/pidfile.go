package upgrade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pidPath returns where the PID file is, whatever becomes of the working directory.
func pidPath(path string) (string, error) {
	if path == "" || filepath.IsAbs(path) {
		return path, nil
	}
	if Dir() == "" {
		return "", fmt.Errorf("PID file %s: the directory in which this program was started is not known", path)
	}
	return filepath.Join(Dir(), path), nil
}

// pidFile is a PID file that is written, and has not taken its place yet: whoever looks finds what was there before.
type pidFile struct{ path, written string }

// writePID writes a process ID, for a path of "" nowhere.
func writePID(path string, pid int) (p *pidFile, err error) {
	if path == "" {
		return &pidFile{}, nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("PID file: %w", err)
		}
	}()
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory", path)
	}
	p = &pidFile{path, writtenBy(path, os.Getpid())}
	os.Remove(p.written) // of another that had this ID, and was killed
	f, err := os.OpenFile(p.written, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(f, pid)
	if err = errors.Join(err, f.Close()); err != nil {
		p.discard()
		return nil, err
	}
	return p, nil
}

// writtenBy returns where a process writes a PID file.
func writtenBy(path string, pid int) string {
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), pid))
}

// commit puts the file in its place.
func (p *pidFile) commit() error {
	if p.written == "" {
		return nil
	}
	if err := os.Rename(p.written, p.path); err != nil {
		return fmt.Errorf("PID file: %w", err)
	}
	p.written = ""
	return nil
}

// discard removes it, unless it is in its place.
func (p *pidFile) discard() {
	if p.written != "" {
		os.Remove(p.written)
	}
}

// removePID removes a PID file, if it has a process' ID.
func removePID(path string, pid int) error {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(pid) {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("PID file: %w", err)
	}
	return nil
}
