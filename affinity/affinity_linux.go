package affinity

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func get(tid int) (Set, error) {
	var mask unix.CPUSet
	if err := unix.SchedGetaffinity(tid, &mask); err != nil {
		return Set{}, os.NewSyscallError("sched_getaffinity", err)
	}
	var s Set
	for cpu := range MaxCPUs {
		if mask.IsSet(cpu) {
			s.Add(cpu)
		}
	}
	return s, nil
}

func assign(tid int, set Set) error {
	if set == (Set{}) {
		return fmt.Errorf("%w: %w", errEmpty, unix.EINVAL)
	}
	var mask unix.CPUSet
	for cpu := range set.All() {
		mask.Set(cpu)
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(tid, &mask))
}

const haveSysfs = true

// maxPasses bounds Process against a program that starts threads faster than they can be bound.
const maxPasses = 1000

func taskDir(pid int) string {
	if pid == 0 {
		return "/proc/self/task"
	}
	return "/proc/" + strconv.Itoa(pid) + "/task"
}

func allowed(pid int) (Set, error) {
	entries, err := os.ReadDir(taskDir(pid))
	if err != nil {
		return Set{}, err
	}
	var all Set
	if pid == 0 {
		// Where /proc is that of another PID namespace it does not name this process's threads.
		if all, err = get(0); err != nil {
			return Set{}, err
		}
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		one, err := get(tid)
		switch {
		case errors.Is(err, unix.ESRCH): // it has ended
		case err != nil:
			return Set{}, err
		default:
			all = all.Union(one)
		}
	}
	return all, nil
}

func bindProcess(pid int, set Set) error {
	// What a thread that is bound will read back: the kernel leaves out what the cpuset forbids.
	dir := taskDir(pid)
	bound := map[int]Set{}
	for range maxPasses {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		changed := false
		for _, e := range entries {
			tid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			now, err := get(tid)
			if err == nil && bound[tid] == now && now != (Set{}) {
				continue
			}
			if err == nil {
				err = assign(tid, set)
			}
			if err == nil {
				now, err = get(tid)
			}
			switch {
			case errors.Is(err, unix.ESRCH): // it has ended
				continue
			case err != nil:
				return err
			}
			bound[tid] = now
			changed = true
		}
		if !changed {
			return nil
		}
	}
	return fmt.Errorf("threads kept starting unbound through %d passes", maxPasses)
}
