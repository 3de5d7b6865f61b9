//go:build unix && !aix

package upgrade

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// handsOn says that descriptors can be handed on.
const handsOn = true

// duplicate copies a descriptor to the first free number that is not less than least.
func duplicate(f syscall.Conn, name string, least int) (*os.File, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	cerr := rc.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, least) })
	if err = errors.Join(cerr, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// closeOnExec reports whether there is such a descriptor, which is closed on exec from then on.
func closeOnExec(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
	return err == nil
}

// identify returns what tells a file from all others.
func identify(info os.FileInfo) (id fileID) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		id = fileID{uint64(s.Dev), uint64(s.Ino)}
	}
	return id
}

// isGone reports whether an error of writing to a socket says that the other end is gone.
func isGone(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }
