//go:build linux || darwin || freebsd

package rlimit

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func get(pid int, r Resource) (Limit, error) {
	n, ok := numbers[r]
	if !ok {
		return Limit{}, errNoSuch(r)
	}
	rl, err := getrlimit(pid, n)
	if err != nil {
		return Limit{}, err
	}
	return Limit{Soft: fromKernel(uint64(rl.Cur)), Hard: fromKernel(uint64(rl.Max))}, nil
}

func set(pid int, r Resource, l Limit) error {
	n, ok := numbers[r]
	if !ok {
		return errNoSuch(r)
	}
	var rl unix.Rlimit
	assign(&rl.Cur, toKernel(l.Soft))
	assign(&rl.Max, toKernel(l.Hard))
	return setrlimit(pid, n, &rl)
}

func errNoSuch(r Resource) error {
	return fmt.Errorf("no such resource here (there are: %s): %w", join(Resources()), errors.ErrUnsupported)
}

// assign hides that the fields of Rlimit are signed on FreeBSD.
func assign[T uint64 | int64](field *T, n uint64) { *field = T(n) }

// infinity is the kernel's RLIM_INFINITY, which is not 2^64-1 everywhere.
const infinity uint64 = unix.RLIM_INFINITY

func fromKernel(n uint64) uint64 {
	if n >= infinity {
		return Infinity
	}
	return n
}

func toKernel(n uint64) uint64 { return min(n, infinity) }
