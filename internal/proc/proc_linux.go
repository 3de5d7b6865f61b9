package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// readStat reads proc_pid_stat(5).
func readStat(pid int) (state string, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	// "123 (name) R 1 ...", where the name may have spaces and brackets
	fmt.Sscan(string(text[bytes.LastIndexByte(text, ')')+1:]), &state, &parent)
	return state, parent
}

// waitedForCPU adds up the second number of each /proc/PID/task/TID/schedstat, in nanoseconds
// (Documentation/scheduler/sched-stats).
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

// resident reads proc_pid_statm(5).
func resident(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, pages uint64
	fmt.Sscan(string(text), &size, &pages)
	return pages * uint64(os.Getpagesize())
}
