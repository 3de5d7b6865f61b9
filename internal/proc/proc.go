// Package proc tells how other processes are, and reaps orphans. Only Linux tells, by the /proc of this PID namespace;
// elsewhere nothing is known.
package proc

import "time"

// State returns "stopped" or "traced" of a process that is, else "".
func State(pid int) string {
	state, _ := readStat(pid)
	return map[string]string{"T": "stopped", "t": "traced"}[state]
}

// Times is what the scheduler has given to the threads of a process, all together, until now.
type Times struct {
	Ran      time.Duration
	Waited   time.Duration // to run, before each time that they came to; one that still waits does not count yet
	Runnable bool          // some thread runs, or waits to
}

// ReadTimes returns the times of a process, zero if they are not known.
func ReadTimes(pid int) Times { return readTimes(pid) }

// StarvedSince reports whether a process whose times were others a while ago has wanted to run most of that while, and
// could not.
func (t Times) StarvedSince(before Times, while time.Duration) bool {
	return t.Waited-before.Waited > while/2 || t.Runnable && t.Ran-before.Ran < while/2
}

// Resident returns the resident set size of a process in bytes, 0 if that is not known.
func Resident(pid int) uint64 { return resident(pid) }
