package sockets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuses is what poll(2) says of a socket that was shut down.
const refuses = unix.POLLRDHUP

// openDirectory opens a directory for life; "" is the current one.
func openDirectory(path string) (*os.File, error) {
	if path == "" {
		path = "."
	}
	return os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// lock keeps other packs from opening sockets in the directory until unlock is called: two that find the same stale one
// could each remove what the other has bound and does not listen on yet. It waits for a moment only, since somebody may
// hold such a lock (flock(2)) for another reason, and takes the right to read the directory. Without, it does nothing.
func (f *file) lock(ctx context.Context) (unlock func()) {
	var held *os.File
	f.at(func(dir int) error {
		fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			held = os.NewFile(uintptr(fd), f.path)
		}
		return err
	})
	if held == nil {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	isHeld := func(err error) bool { return err == unix.EWOULDBLOCK || err == unix.EINTR }
	for isHeld(unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB)) && ctx.Err() == nil {
		time.Sleep(lockPoll)
	}
	return func() { held.Close() }
}

const (
	lockPatience = time.Second
	lockPoll     = 5 * time.Millisecond
)

// maxPath is how long the address of a Unix socket may be, with the zero byte at its end.
const maxPath = len(unix.RawSockaddrUnix{}.Path)

// bindAddress returns what to bind the socket to. The kernel follows no link there. It shows the address to whoever
// asks, so it is the path that the user wrote, unless that is too long.
func (f *file) bindAddress() (address string, err error) {
	if len(f.path) < maxPath {
		return f.path, nil
	}
	err = f.at(func(dir int) error {
		address = fmt.Sprintf("/proc/self/fd/%d/%s", dir, f.name)
		_, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d", dir))
		return err
	})
	if err != nil || len(address) >= maxPath {
		return "", fmt.Errorf("the path is too long, at most %d bytes: %w", maxPath-1, syscall.ENAMETOOLONG)
	}
	return address, nil
}

// made are bits in the mode that the file has in the moment of the bind, whatever the umask. They tell it from all
// others that somebody may put in its place: of these, no one else can make one that is ours.
const made = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX

// mark sets the mode with which the file of a socket will be made, and reports whether it can. Nobody but the owner
// may connect.
func mark(fd int) bool { return unix.Fchmod(fd, made|unix.S_IWUSR) == nil }

// make gives the file, which has just been bound, its permissions and its owner.
func (f *file) make(files Files, marked bool) error {
	return f.at(func(dir int) error {
		fd, err := unix.Openat(dir, f.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: f.path, Err: err}
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return &os.PathError{Op: "stat", Path: f.path, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != os.Geteuid() || marked && st.Mode&made != made {
			return errSwapped
		}
		f.id = identify(&st)
		// In this order nobody may connect for a moment who must not, and to give the file away is the only right that
		// it takes.
		uid, gid := -1, -1
		if files.Owner != nil {
			uid, gid = files.Owner.UID, files.Owner.GID
		}
		if err := own(fd, -1, gid); err != nil {
			return err
		}
		if err := chmod(fd, files.Mode); err != nil {
			return err
		}
		return own(fd, uid, -1)
	})
}

func own(fd, uid, gid int) error {
	if uid == -1 && gid == -1 {
		return nil
	}
	err := os.NewSyscallError("fchownat", unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH))
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("give the file to its owner (which takes root or CAP_CHOWN): %w", err)
	}
	return err
}

// chmod sets the permissions of a file that was opened by O_PATH, which fchmod(2) refuses.
func chmod(fd int, mode fs.FileMode) error {
	err := unix.Fchmodat(fd, "", uint32(mode.Perm()), unix.AT_EMPTY_PATH) // Linux 6.6
	if err != nil {
		err = unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), uint32(mode.Perm()))
	}
	return os.NewSyscallError("fchmodat", err)
}

func identify(st *unix.Stat_t) FileID { return FileID{uint64(st.Dev), st.Ino} }

// stat returns which file has a name in the directory now.
func (f *file) stat(name string) (id FileID, mode fs.FileMode, err error) {
	err = f.at(func(dir int) error {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: f.path, Err: err}
		}
		if id = identify(&st); st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			mode = fs.ModeSocket
		}
		return nil
	})
	return id, mode, err
}

// alive reports whether a process listens at the socket that has a name in the directory. If none does it calls ifNot,
// while no other file can have the same number.
func (f *file) alive(name string, id FileID, ifNot func() error) (alive bool, err error) {
	err = f.at(func(dir int) error {
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: f.path, Err: err}
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || identify(&st) != id {
			return errors.Join(errSwapped, err)
		}
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(s)
		address := fmt.Sprintf("/proc/self/fd/%d", fd)
		err = unix.Connect(s, &unix.SockaddrUnix{Name: address})
		if errors.Is(err, unix.ENOENT) { // there is no /proc
			err = unix.Connect(s, &unix.SockaddrUnix{Name: filepath.Join(filepath.Dir(f.path), name)})
		}
		switch err {
		case nil, unix.EAGAIN, unix.EPROTOTYPE: // its queue is full, or it is no stream
			alive = true
			return nil
		case unix.ECONNREFUSED:
			return ifNot()
		}
		return fmt.Errorf("cannot tell whether a process is listening there: %w", os.NewSyscallError("connect", err))
	})
	return alive, err
}

func (f *file) unlink(name string) error {
	return f.at(func(dir int) error { return os.NewSyscallError("unlinkat", unix.Unlinkat(dir, name, 0)) })
}

// rename gives a file another name, if that is free.
func (f *file) rename(from, to string) error {
	return f.at(func(dir int) error {
		err := unix.Renameat2(dir, from, dir, to, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL || err == unix.ENOSYS { // the file system cannot say so
			if _, _, err := f.stat(to); err == nil {
				return os.NewSyscallError("renameat", unix.EEXIST)
			}
			err = unix.Renameat(dir, from, dir, to)
		}
		return os.NewSyscallError("renameat", err)
	})
}

// shutdown has a listening Unix socket refuse new connections.
func shutdown(c syscall.Conn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = os.NewSyscallError("shutdown", unix.Shutdown(int(fd), unix.SHUT_RD)) })
	return errors.Join(cerr, err)
}

// disconnect closes what a TCP socket is connected to, or has it listen no more (connect(2), AF_UNSPEC).
func disconnect(fd int) {
	nothing := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nothing)), unsafe.Sizeof(nothing))
}
