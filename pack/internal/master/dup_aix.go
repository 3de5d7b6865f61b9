package master

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// dup returns a copy of a descriptor, which is close-on-exec.
func dup(fd int) (int, error) {
	syscall.ForkLock.RLock() // x/sys knows no F_DUPFD_CLOEXEC here
	defer syscall.ForkLock.RUnlock()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 3)
	if err == nil {
		unix.CloseOnExec(n)
	}
	return n, err
}
