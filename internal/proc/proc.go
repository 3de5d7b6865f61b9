// Package proc tells how other processes are, and reaps orphans. Only Linux tells; elsewhere nothing is known.
package proc

import "time"

// State returns "stopped" or "traced" of a process that is, else "".
func State(pid int) string {
	state, _ := readStat(pid)
	return map[string]string{"T": "stopped", "t": "traced"}[state]
}

// WaitedForCPU returns for how long the threads of a process have waited for a CPU since it began, all together; 0 if that is
// not known.
func WaitedForCPU(pid int) time.Duration { return waitedForCPU(pid) }

// Resident returns the resident set size of a process in bytes, 0 if that is not known.
func Resident(pid int) uint64 { return resident(pid) }
