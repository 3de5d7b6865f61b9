package worker

import (
	"time"

	"golang.org/x/sys/unix"
)

// processorTime returns what this process has used, and whether the system tells.
func processorTime() (used time.Duration, ok bool) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return time.Duration(t.Nano()), err == nil
}
