package inplace

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func execve(path string, args, env []string, files []*os.File) error {
	syscall.ForkLock.Lock() // no child may inherit the descriptors meanwhile
	defer syscall.ForkLock.Unlock()
	for i, f := range files {
		before, err := setDescriptorFlags(f, 0)
		if err != nil {
			return err
		}
		defer setDescriptorFlags(files[i], before)
	}
	return os.NewSyscallError("execve", syscall.Exec(path, args, env))
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
