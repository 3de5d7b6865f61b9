//go:build darwin || freebsd

package rlimit

import "golang.org/x/sys/unix"

var numbers = map[Resource]int{
	AS: unix.RLIMIT_AS, CORE: unix.RLIMIT_CORE, CPU: unix.RLIMIT_CPU, DATA: unix.RLIMIT_DATA,
	FSIZE: unix.RLIMIT_FSIZE, MEMLOCK: unix.RLIMIT_MEMLOCK, NOFILE: unix.RLIMIT_NOFILE,
	NPROC: unix.RLIMIT_NPROC, RSS: unix.RLIMIT_RSS, STACK: unix.RLIMIT_STACK,
}
