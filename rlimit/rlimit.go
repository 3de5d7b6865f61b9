// Package rlimit reads and raises the resource limits of processes, getrlimit(2): open files, processes,
// locked memory and the rest.
//
// A limit has two values. The soft one is enforced; the process may move it up to the hard one. Only a
// process with CAP_SYS_RESOURCE (on Linux; root elsewhere) may move the hard one up, and whoever moves it down
// cannot go back. Limits belong to the process, not to a thread, and child processes inherit them.
//
// The Go runtime raises the soft limit of open files to one below the hard one when a program starts, and gives child
// processes the former value back. After a [Set] or [Raise] of [NOFILE] that succeeded, children get what this process
// has, for good. A program whose children must keep the former value, since they use select(2), leaves that limit
// alone if [Get] says that it suffices.
//
// All functions are safe for concurrent use. Where an operating system has no such limit the error matches
// [errors.ErrUnsupported]; on all but Linux, macOS and FreeBSD this package knows of none. Limits of other processes
// are Linux's.
package rlimit

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
)

// A Resource is what a limit is about, by its name without RLIMIT_, in lower case.
type Resource string

// The resources of POSIX, then those that some systems add.
const (
	AS     Resource = "as"     // address space, bytes
	CORE   Resource = "core"   // size of a core file, bytes
	CPU    Resource = "cpu"    // processor time, seconds
	DATA   Resource = "data"   // data segment and heap, bytes
	FSIZE  Resource = "fsize"  // size of a file that the process writes, bytes
	NOFILE Resource = "nofile" // one more than the highest descriptor
	STACK  Resource = "stack"  // stack of the first thread, bytes

	MEMLOCK Resource = "memlock" // memory locked into RAM, bytes
	NPROC   Resource = "nproc"   // processes and threads of this user
	RSS     Resource = "rss"     // resident memory, bytes; Linux ignores it

	LOCKS      Resource = "locks"      // file locks; Linux before 2.4.25
	MSGQUEUE   Resource = "msgqueue"   // POSIX message queues, bytes; Linux
	NICE       Resource = "nice"       // 20 minus the lowest nice value; Linux
	RTPRIO     Resource = "rtprio"     // real-time priority; Linux
	RTTIME     Resource = "rttime"     // real-time processor time without a pause, microseconds; Linux
	SIGPENDING Resource = "sigpending" // queued signals; Linux
)

// Infinity is no limit.
const Infinity uint64 = math.MaxUint64

// Limit is the two values of a limit, in the unit of its resource; [Infinity] is none.
type Limit struct {
	Soft uint64 // what is enforced
	Hard uint64 // how far the process may raise Soft
}

// Get returns the limit of a resource.
func Get(r Resource) (Limit, error) {
	l, err := get(self, r)
	if err != nil {
		return Limit{}, fmt.Errorf("rlimit: get %s: %w", r, err)
	}
	return l, nil
}

// Set sets both values of a limit. A soft value above the hard one is EINVAL; raising the hard one without the
// right to is EPERM, and so is, even for root, NOFILE above /proc/sys/fs/nr_open on Linux. On error nothing has
// changed, neither for this process nor for what its children get.
func Set(r Resource, l Limit) error {
	if err := set(self, r, l); err != nil {
		if now, gerr := get(self, r); gerr == nil && l.Hard > now.Hard && errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("the hard limit is %s: %w", format(now.Hard), err)
		}
		return fmt.Errorf("rlimit: set %s to %s: %w", r, l, err)
	}
	return nil
}

// GetOf returns the limit that another process has, by its PID (prlimit(2), Linux 2.6.36). It must be one of the same
// user and group, real, effective and saved, or this process needs CAP_SYS_RESOURCE: else the error matches
// [os.ErrPermission]. Without such a process it is ESRCH.
func GetOf(pid int, r Resource) (Limit, error) {
	l, err := Limit{}, checkPID(pid)
	if err == nil {
		l, err = get(pid, r)
	}
	if err != nil {
		return Limit{}, fmt.Errorf("rlimit: get %s of process %d: %w", r, pid, err)
	}
	return l, nil
}

// SetOf sets both values of a limit of another process, as [Set] does, if [GetOf] may read it. What the process has
// already, such as open files beyond the limit, stays.
//
// A Go program sets its own limit of open files when it starts, and gives its children the former one until that is
// changed from outside: set it when the program is up.
func SetOf(pid int, r Resource, l Limit) error {
	err := checkPID(pid)
	if err == nil {
		err = set(pid, r, l)
	}
	if err != nil {
		return fmt.Errorf("rlimit: set %s of process %d to %s: %w", r, pid, l, err)
	}
	return nil
}

// self is this process to prlimit(2).
const self = 0

// checkPID keeps the PID of a process that was not started from meaning this one.
func checkPID(pid int) error {
	if pid <= self {
		return fmt.Errorf("no process has that number: %w", os.ErrInvalid)
	}
	return nil
}

// Raise makes the soft limit of a resource at least n and returns what holds then. It lowers nothing: a limit
// that is higher already stays. If n is above the hard limit, Raise raises that as well, which takes
// privilege: without it the limit stays as it is and the error matches [os.ErrPermission].
//
// Children that are started from then on have what this process has, also if the Go runtime had raised the limit of
// open files already.
func Raise(r Resource, n uint64) (Limit, error) {
	now, err := Get(r)
	if err != nil {
		return Limit{}, err
	}
	if now.Soft >= n && r != NOFILE { // which children would not get: see the package comment
		return now, nil
	}
	want := Limit{Soft: max(n, now.Soft), Hard: max(n, now.Hard)}
	err = set(self, r, want)
	switch {
	case err == nil:
		return want, nil
	case n > now.Hard:
		return now, fmt.Errorf("rlimit: raise %s to %s: the hard limit is %s: %w", r, format(n), format(now.Hard), err)
	}
	return now, fmt.Errorf("rlimit: raise %s to %s: %w", r, format(n), err)
}

// RaiseUpTo is [Raise] for a program that can do with less: if n is above the hard limit, and this process may not
// raise that, it raises the soft limit to the hard one. It returns what holds then: a Soft below n says that there is
// no more. With [Infinity] it raises as far as it may. What the system allows nobody it does not try; for [NOFILE]
// that is what is above /proc/sys/fs/nr_open on Linux, and above kern.maxfilesperproc on macOS.
func RaiseUpTo(r Resource, n uint64) (Limit, error) {
	now, err := Get(r)
	if err != nil {
		return Limit{}, err
	}
	n = min(n, ceiling(r))
	l, err := Raise(r, n)
	if n > now.Hard && errors.Is(err, os.ErrPermission) {
		return Raise(r, now.Hard)
	}
	return l, err
}

// Resources returns the resources that this operating system has, sorted by name.
func Resources() []Resource { return slices.Sorted(maps.Keys(numbers)) }
