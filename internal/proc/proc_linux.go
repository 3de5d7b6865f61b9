package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// ours reports whether /proc tells of the processes that this one knows by their numbers. It may be that of another PID
// namespace, if nobody has mounted one since this was made (unshare -p): there a number is somebody else's.
var ours = sync.OnceValue(func() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
})

// readStat reads proc_pid_stat(5).
func readStat(pid int) (state string, parent int) {
	if !ours() {
		return "", 0
	}
	return readStatOf(fmt.Sprintf("/proc/%d", pid))
}

func readStatOf(dir string) (state string, parent int) {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return "", 0
	}
	// "123 (name) R 1 ...", where the name may have spaces and brackets
	fmt.Sscan(string(text[bytes.LastIndexByte(text, ')')+1:]), &state, &parent)
	return state, parent
}

// readTimes adds up the first two numbers of each /proc/PID/task/TID/schedstat, in nanoseconds
// (Documentation/scheduler/sched-stats).
func readTimes(pid int) (all Times) {
	if !ours() {
		return all
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, dir := range tasks {
		var ran, waited int64
		if text, err := os.ReadFile(dir + "/schedstat"); err == nil {
			fmt.Sscan(string(text), &ran, &waited)
		}
		all.Ran += time.Duration(ran)
		all.Waited += time.Duration(waited)
		state, _ := readStatOf(dir)
		all.Runnable = all.Runnable || state == "R"
	}
	return all
}

// resident reads proc_pid_statm(5).
func resident(pid int) uint64 {
	if !ours() {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, pages uint64
	fmt.Sscan(string(text), &size, &pages)
	return pages * uint64(os.Getpagesize())
}
