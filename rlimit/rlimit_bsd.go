//go:build darwin || freebsd

package rlimit

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

var numbers = map[Resource]int{
	AS: unix.RLIMIT_AS, CORE: unix.RLIMIT_CORE, CPU: unix.RLIMIT_CPU, DATA: unix.RLIMIT_DATA,
	FSIZE: unix.RLIMIT_FSIZE, MEMLOCK: unix.RLIMIT_MEMLOCK, NOFILE: unix.RLIMIT_NOFILE,
	NPROC: unix.RLIMIT_NPROC, RSS: unix.RLIMIT_RSS, STACK: unix.RLIMIT_STACK,
}

func getrlimit(pid, resource int) (rl unix.Rlimit, err error) {
	if pid != self {
		return rl, errors.ErrUnsupported
	}
	err = os.NewSyscallError("getrlimit", unix.Getrlimit(resource, &rl))
	return rl, err
}

// setrlimit goes by way of package syscall (x/sys does), which tells the Go runtime that children shall no longer get
// the limit of open files that this process was started with. It does so even if the kernel refuses: so what would be
// refused is not tried.
func setrlimit(pid, resource int, rl *unix.Rlimit) error {
	now, err := getrlimit(pid, resource)
	if err != nil {
		return err
	}
	switch {
	case rl.Cur > rl.Max:
		err = unix.EINVAL
	case rl.Max > now.Max && os.Geteuid() != 0:
		err = unix.EPERM
	default:
		err = unix.Setrlimit(resource, rl)
	}
	return os.NewSyscallError("setrlimit", err)
}

// ceiling returns what nobody can raise a limit above.
func ceiling(r Resource) uint64 {
	if r == NOFILE && runtime.GOOS == "darwin" {
		if n, err := unix.SysctlUint32("kern.maxfilesperproc"); err == nil {
			return uint64(n)
		}
	}
	return Infinity
}
