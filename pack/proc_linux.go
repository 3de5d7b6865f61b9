package pack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// processState returns "stopped" or "traced" of a process that is, else "".
func processState(pid int) string {
	state, _ := readStat(pid)
	return map[string]string{"T": "stopped", "t": "traced"}[state]
}

// readStat returns the state of a process, such as "R", and its parent; "" if there is no such process. See proc_pid_stat(5).
func readStat(pid int) (state string, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	// "123 (name) R 1 ...", where the name may have spaces and brackets
	fmt.Sscan(string(text[bytes.LastIndexByte(text, ')')+1:]), &state, &parent)
	return state, parent
}

// waitedForCPU returns for how long the threads of a process have waited for a CPU since it began, all together; 0 if the kernel
// does not tell. It is the second number of /proc/PID/task/TID/schedstat, in nanoseconds (Documentation/scheduler/sched-stats).
func waitedForCPU(pid int) (all time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range files {
		var ran, waited int64
		if text, err := os.ReadFile(name); err == nil {
			fmt.Sscan(string(text), &ran, &waited)
		}
		all += time.Duration(waited)
	}
	return all
}

// residentMemory returns the resident set size of a process in bytes, 0 if that cannot be told. See proc_pid_statm(5).
func residentMemory(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, resident uint64
	fmt.Sscan(string(text), &size, &resident)
	return resident * uint64(os.Getpagesize())
}
