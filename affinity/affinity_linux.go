package affinity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func get(tid int) (Set, error) { return getBy(unix.NewCPUSet(MaxCPUs), tid) }

// getBy is get by way of a mask of the caller's, which is as empty as it was made, or what getBy has left.
func getBy(mask unix.CPUSetDynamic, tid int) (Set, error) {
	if err := unix.SchedGetaffinityDynamic(tid, mask); err != nil {
		return Set{}, os.NewSyscallError("sched_getaffinity", err)
	}
	var s Set
	size := MaxCPUs / len(mask) // CPUs in one word of the kernel's
	for i, word := range mask {
		s.words[i*size/64] |= uint64(word) << (i * size % 64)
	}
	return s, nil
}

func assign(tid int, set Set) error {
	if set.IsEmpty() {
		return fmt.Errorf("%w: %w", errEmpty, unix.EINVAL)
	}
	mask := unix.NewCPUSet(MaxCPUs)
	for cpu := range set.All() {
		mask.Set(cpu)
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinityDynamic(tid, mask))
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

// errForeign is the error where /proc has other numbers for processes and threads than system calls.
var errForeign = errors.New("/proc is of another PID namespace, want one that was mounted in this one")

// tasks returns the threads of a process, in ascending order.
func tasks(pid int) (tids []int, err error) {
	if self, err := os.Readlink("/proc/self"); err == nil && self != strconv.Itoa(os.Getpid()) {
		return nil, errForeign
	}
	dir, err := os.Open(taskDir(pid))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if tid, err := strconv.Atoi(name); err == nil {
			tids = append(tids, tid)
		}
	}
	slices.Sort(tids)
	return tids, nil
}

func allowed(pid int) (Set, error) {
	var all Set
	mask := unix.NewCPUSet(MaxCPUs) // for all, since a master asks again and again, and has many threads
	if pid == 0 {
		// Where /proc is that of another PID namespace, or is not there, it does not name this process's threads.
		var err error
		if all, err = getBy(mask, 0); err != nil {
			return Set{}, err
		}
	}
	tids, err := tasks(pid)
	if err != nil && pid != 0 {
		return Set{}, err
	}
	for _, tid := range tids {
		one, err := getBy(mask, tid)
		switch {
		case errors.Is(err, unix.ESRCH): // it has ended
		case err != nil:
			return Set{}, err
		default:
			all = all.Union(one)
		}
	}
	if all.IsEmpty() {
		return Set{}, unix.ESRCH
	}
	return all, nil
}

func bindProcess(pid int, set Set) error {
	// What a thread that is bound will read back: the kernel leaves out what the cpuset forbids.
	bound := map[int]Set{}
	for range maxPasses {
		tids, err := tasks(pid)
		if err != nil {
			return err
		}
		changed := false
		for _, tid := range tids {
			now, err := get(tid)
			if err == nil && bound[tid] == now && !now.IsEmpty() {
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
		switch {
		case changed:
		case len(bound) == 0:
			return unix.ESRCH
		default:
			return nil
		}
	}
	return fmt.Errorf("threads kept starting unbound through %d passes", maxPasses)
}

func threads(pid int) (all []Thread, err error) {
	tids, err := tasks(pid)
	if err != nil {
		return nil, err
	}
	for _, tid := range tids {
		t := Thread{ID: tid}
		text, err := os.ReadFile(taskDir(pid) + "/" + strconv.Itoa(tid) + "/stat")
		if err == nil {
			t.Name, t.LastCPU, err = parseStat(string(text))
		}
		if err == nil {
			t.Mask, err = get(tid)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH): // it has ended
		case err != nil:
			return nil, fmt.Errorf("thread %d: %w", tid, err)
		default:
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return nil, unix.ESRCH
	}
	return all, nil
}

// parseStat reads the name and the CPU of a line of proc_pid_stat(5).
func parseStat(line string) (name string, cpu int, err error) {
	const processor = 39 - 3 // the number of its field, behind the name, which is the second
	first, last := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if first < 0 || last < first {
		return "", 0, fmt.Errorf("stat %.100q: there is no name in brackets", line)
	}
	fields := strings.Fields(line[last+1:])
	if len(fields) <= processor {
		return "", 0, fmt.Errorf("stat %.100q: there are too few fields", line)
	}
	if cpu, err = parseNumber(fields[processor]); err != nil {
		return "", 0, fmt.Errorf("stat %.100q: CPU: %w", line, err)
	}
	return line[first+1 : last], cpu, nil
}
