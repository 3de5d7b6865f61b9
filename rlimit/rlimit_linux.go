package rlimit

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var numbers = map[Resource]int{
	AS: unix.RLIMIT_AS, CORE: unix.RLIMIT_CORE, CPU: unix.RLIMIT_CPU, DATA: unix.RLIMIT_DATA,
	FSIZE: unix.RLIMIT_FSIZE, LOCKS: unix.RLIMIT_LOCKS, MEMLOCK: unix.RLIMIT_MEMLOCK,
	MSGQUEUE: unix.RLIMIT_MSGQUEUE, NICE: unix.RLIMIT_NICE, NOFILE: unix.RLIMIT_NOFILE,
	NPROC: unix.RLIMIT_NPROC, RSS: unix.RLIMIT_RSS, RTPRIO: unix.RLIMIT_RTPRIO,
	RTTIME: unix.RLIMIT_RTTIME, SIGPENDING: unix.RLIMIT_SIGPENDING, STACK: unix.RLIMIT_STACK,
}

func getrlimit(pid, resource int) (rl unix.Rlimit, err error) {
	err = os.NewSyscallError("prlimit", unix.Prlimit(pid, resource, nil, &rl))
	return rl, err
}

// setrlimit tells the Go runtime, if it succeeds, that children shall no longer get the limit of open files that this
// process was started with: x/sys goes by way of package syscall. syscall.Setrlimit would tell it before it tries.
func setrlimit(pid, resource int, rl *unix.Rlimit) error {
	return os.NewSyscallError("prlimit", unix.Prlimit(pid, resource, rl, nil))
}

// ceiling returns what nobody can raise a limit above.
func ceiling(r Resource) uint64 {
	if r != NOFILE {
		return Infinity
	}
	text, _ := os.ReadFile("/proc/sys/fs/nr_open")
	if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
		return n
	}
	return Infinity // the kernel knows
}
