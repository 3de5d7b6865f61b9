package inplace

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

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

// sigaction is room for the kernel's struct sigaction, whose layout depends on the architecture. All zero, it is SIG_DFL
// without flags on each of them.
type sigaction [128]byte

func defaultSignals(signals []os.Signal) (restore func(), err error) {
	before := map[syscall.Signal]*sigaction{}
	restore = func() {
		for s, old := range before {
			rtSigaction(s, old, nil)
		}
	}
	for _, signal := range signals {
		s, ok := signal.(syscall.Signal)
		if !ok {
			continue
		}
		old := new(sigaction)
		if err := rtSigaction(s, new(sigaction), old); err != nil {
			restore()
			return nil, err
		}
		before[s] = old
	}
	return restore, nil
}

func rtSigaction(s syscall.Signal, action, old *sigaction) error {
	setSize := uintptr(8) // of a set of signals
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		setSize = 16
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(action)),
		uintptr(unsafe.Pointer(old)), setSize, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("rt_sigaction", errno)
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
