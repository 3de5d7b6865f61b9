// Package affinity tells which CPUs this process may use and how they share cores, caches and memory, and
// pins threads and processes to them.
//
// On Linux a CPU mask belongs to a thread, not to a process, and a new thread or process inherits the mask of
// the thread that made it (sched_setaffinity(2)). A Go program moves between threads as the scheduler likes,
// so calling sched_setaffinity in the midst of it pins the wrong thread. [Do] starts child processes that are
// pinned from their first instruction, [Pin] binds one goroutine, and [Process] rebinds a process that already
// runs, thread by thread. [Threads] shows where its threads may run, and where they did last.
//
// What a process may use is its mask, [Current] and [Allowed]. [ReadTopology] tells what these CPUs share, [Spread]
// divides them among workers by that.
//
// A Go process that is started with a mask of one CPU has GOMAXPROCS 1 by itself: nothing else need be set.
//
// Everything here works on Linux. Elsewhere the calls return an error that matches [errors.ErrUnsupported].
package affinity

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
)

// Current returns the CPUs that the calling thread may run on, sched_getaffinity(2). In a program that pins
// no threads of its own this is the mask of the process: what taskset, the container's cpuset and the service
// manager left it. The kernel takes CPUs that are offline out of it.
func Current() (Set, error) {
	s, err := get(0)
	if err != nil {
		return Set{}, fmt.Errorf("affinity: get mask: %w", err)
	}
	return s, nil
}

// Do calls f on a thread that is bound to set, so that processes started in f inherit the mask: all threads
// of such a child run on these CPUs from its first instruction.
//
//	err := affinity.Do(affinity.Of(3), cmd.Start)
//
// f runs in a goroutine of its own. Afterwards the thread's former mask is restored; if that fails, the thread
// is discarded. Do returns f's error, or says why f was not called: an empty set, or a set without a CPU that
// this process may use, is EINVAL. A panic in f continues in the caller of Do. Goroutines that f starts run
// on other threads and are not bound. Safe for concurrent use.
func Do(set Set, f func() error) error {
	type outcome struct {
		err      error
		panicked any
		finished bool // f neither panicked nor called runtime.Goexit
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() { done <- o }()
		undo, err := Pin(set)
		if err != nil {
			o.err, o.finished = err, true
			return
		}
		defer func() {
			// If the mask cannot be restored the goroutine ends locked, and its thread ends with it.
			_ = undo()
		}()
		defer func() {
			if !o.finished {
				o.panicked = recover()
			}
		}()
		o.err = f()
		o.finished = true
	}()
	o := <-done
	switch {
	case o.panicked != nil:
		panic(o.panicked)
	case !o.finished:
		runtime.Goexit()
	}
	return o.err
}

// Pin locks the calling goroutine to its thread and binds that thread to set. It returns the undo, to be
// called once and from the same goroutine, which restores the former mask and unlocks the goroutine. If undo
// fails the goroutine stays locked, so that no other goroutine gets a bound thread; when it ends, the thread
// ends too.
//
// CPUs in set that this process may not use are left out by the kernel; if none is left, the error is EINVAL.
func Pin(set Set) (undo func() error, err error) {
	runtime.LockOSThread()
	former, err := get(0)
	if err == nil {
		err = assign(0, set)
	}
	if err != nil {
		runtime.UnlockOSThread()
		if errors.Is(err, syscall.EINVAL) && !set.IsEmpty() {
			err = fmt.Errorf("this process has CPUs %q: %w", former, err)
		}
		return nil, fmt.Errorf("affinity: pin to CPUs %q: %w", set, err)
	}
	return func() error {
		if err := assign(0, former); err != nil {
			return fmt.Errorf("affinity: restore mask %q: %w", former, err)
		}
		runtime.UnlockOSThread()
		return nil
	}, nil
}

// Allowed returns the CPUs that any thread of the process pid may run on; 0 is the calling process. It follows the
// container's cpuset, and CPUs that come and go, also where [Pin] or [Do] was used: a thread whose mask was ever set
// gets no CPU that is added later, but the others do (sched_setaffinity(2), cpuset(7)).
func Allowed(pid int) (Set, error) {
	s, err := allowed(pid)
	if err != nil {
		return Set{}, fmt.Errorf("affinity: get masks of process %d: %w", pid, err)
	}
	return s, nil
}

// Thread is one thread of a process, and where it runs.
type Thread struct {
	ID      int    // as gettid(2) returns it; that of the first is the PID
	Name    string // as the program has named it, up to 15 bytes; else that of the executable
	Mask    Set    // the CPUs that it may run on
	LastCPU int    // the CPU that it runs on, or ran on last
}

// Threads returns the threads of the process pid in ascending order, with the masks that taskset -ap shows; 0 is the
// calling process. Threads that end meanwhile are left out, and those that start may be. The process may be anybody's
// that /proc shows (proc_pid_stat(5)).
func Threads(pid int) ([]Thread, error) {
	all, err := threads(pid)
	if err != nil {
		return nil, fmt.Errorf("affinity: threads of process %d: %w", pid, err)
	}
	return all, nil
}

// Process binds every thread of the process pid to set; 0 is the calling process. The kernel leaves out what its cpuset
// forbids, so that with all CPUs, which [Parse] reads as "0-8191", it may use what its container may, whatever mask it
// was started with.
//
// A thread that starts meanwhile may be missed by one pass over /proc/PID/task, so Process repeats until a pass finds
// every thread bound. Threads that end meanwhile do not matter. The process must be of the same user, or it takes
// CAP_SYS_NICE.
//
// A Go process that is bound this way adapts GOMAXPROCS within about a second; runtime.NumCPU keeps its value
// from the start. To start a process bound, use [Do].
//
// [Process], [Threads] and, but for 0, [Allowed] need the /proc of this PID namespace: with that of another, as after
// unshare --pid without --mount-proc, whose numbers are other processes', they fail.
func Process(pid int, set Set) error {
	if err := bindProcess(pid, set); err != nil {
		return fmt.Errorf("affinity: bind process %d to CPUs %q: %w", pid, set, err)
	}
	return nil
}

// errEmpty is what binding to no CPU at all gives; it explains the kernel's bare EINVAL.
var errEmpty = errors.New("the set is empty")
