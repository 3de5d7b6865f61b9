package upgrade

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func canBecome() error {
	if privileged() {
		return fmt.Errorf("it has rights by its file (setuid, setgid or capabilities): %w", os.ErrPermission)
	}
	if _, err := os.Stat(runningFile); err != nil {
		return fmt.Errorf("%w (is /proc mounted?)", err)
	}
	return nil
}

// memoryFile makes a file in memory, memfd_create(2).
func memoryFile() (*os.File, error) {
	const name = "gopherpack estate"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return dup(f) // standard input may be closed, and its number free
}

// startTime returns when this process was started, in ticks since the machine was: with the process ID that tells it
// from all others, also in another PID namespace. See proc(5), /proc/pid/stat.
func startTime() (uint64, error) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, err
	}
	const field = 22
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // from the third on
	if len(fields) <= field-3 {
		return 0, fmt.Errorf("/proc/self/stat is %q", text)
	}
	return strconv.ParseUint(string(fields[field-3]), 10, 64)
}

// execve becomes another program, which inherits files.
func execve(path string, args, env []string, files []*os.File, dir string) error {
	back, err := changeDir(dir)
	if err != nil {
		return err
	}
	defer back()
	syscall.ForkLock.Lock() // no child may inherit the descriptors meanwhile
	defer syscall.ForkLock.Unlock()
	for i, f := range files {
		before, err := setDescriptorFlags(f, 0)
		if err != nil {
			return err
		}
		defer setDescriptorFlags(files[i], before)
	}
	defer keepFileLimit()()
	return os.NewSyscallError("execve", syscall.Exec(path, args, env))
}

// changeDir changes the working directory, and back to one that need not have a name any more.
func changeDir(dir string) (back func(), err error) {
	if dir == "" {
		return func() {}, nil
	}
	here, err := os.OpenFile(".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(dir); err != nil {
		here.Close()
		return nil, err
	}
	return func() {
		here.Chdir()
		here.Close()
	}, nil
}

// keepFileLimit returns a function that sets the limit of open files to what it is now. [syscall.Exec] sets the one
// that the process was started with, and does not undo that.
func keepFileLimit() (restore func()) {
	limit := new(unix.Rlimit)
	if prlimit(nil, limit) != nil {
		return func() {}
	}
	return func() { prlimit(limit, nil) }
}

func prlimit(set, get *unix.Rlimit) error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(set)),
		uintptr(unsafe.Pointer(get)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setDescriptorFlags sets the flags, of which close-on-exec is the only one, and returns those before.
func setDescriptorFlags(f *os.File, flags int) (before int, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := rc.Control(func(fd uintptr) {
		if before, err = unix.FcntlInt(fd, unix.F_GETFD, 0); err == nil {
			_, err = unix.FcntlInt(fd, unix.F_SETFD, flags)
		}
	})
	if cerr != nil {
		return 0, cerr
	}
	return before, os.NewSyscallError("fcntl", err)
}
