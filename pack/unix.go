package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// socketFiles says how the files of Unix sockets are made.
type socketFiles struct {
	mode  fs.FileMode
	owner string // as Config.UnixOwner; "": whoever makes it
}

// narrow has a socket's file be made with no more permissions than it is to have, where the system does so (Linux). It is for a
// ListenConfig's Control.
func (f socketFiles) narrow(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { setMode(int(fd), f.mode) })
}

// make gives a socket's file its owner and permissions, of which the umask may have taken some.
func (f socketFiles) make(path string) error {
	if f.owner != "" {
		if err := changeOwner(path, f.owner); err != nil {
			return fmt.Errorf("UnixOwner %q: %w", f.owner, err)
		}
	}
	return os.Chmod(path, f.mode)
}

// openUnix opens a Unix socket, in place of one whose process is gone.
func openUnix(ctx context.Context, path string, files socketFiles) (*socketSet, error) {
	named := path != "" && path[0] != '@' // others have no file
	if named {
		if err := removeStale(ctx, path); err != nil {
			return nil, fmt.Errorf("listen unix %s: %w", path, err)
		}
	}
	config := net.ListenConfig{}
	if named {
		config.Control = files.narrow
	}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // a worker's copy must not
	set := &socketSet{listeners: []net.Listener{l}, shared: true}
	if named {
		set.path = path
		if set.inode, err = fileAt(path); err == nil {
			err = files.make(path)
		}
		if err != nil {
			l.Close()
			set.unlink()
			return nil, fmt.Errorf("listen unix %s: %w", path, err)
		}
	}
	return set, nil
}

// removeStale removes a Unix socket on which nobody listens any more.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is a file that is not a socket: %w", fs.ErrExist)
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("a process is listening there: %w", syscall.EADDRINUSE)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	default:
		return fmt.Errorf("cannot tell whether a process is listening there: %w", err)
	}
}

// unlink removes the file of a Unix socket, unless somebody else has put another in its place.
func (s *socketSet) unlink() {
	if s.path == "" {
		return
	}
	if now, err := fileAt(s.path); err == nil && now == s.inode {
		os.Remove(s.path)
	}
	s.path = ""
}
