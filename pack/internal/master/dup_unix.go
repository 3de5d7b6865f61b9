//go:build unix && !aix

package master

import "golang.org/x/sys/unix"

// dup returns a copy of a descriptor, which is close-on-exec.
func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3) }
