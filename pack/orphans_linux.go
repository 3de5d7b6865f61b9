package pack

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reapEvery is how often process 1 looks for orphans that have ended. One is reaped at the second look.
const reapEvery = time.Second

// reapOrphans reaps children that this process has inherited as process 1, or as a subreaper (prctl(2)), until stop is called. It
// leaves the workers alone, and what ended just now, which whoever started it in this process will wait for.
func (m *masterState) reapOrphans() (stop func()) {
	if !inheritsOrphans() || !ownProc() {
		return func() {}
	}
	var ended map[int]bool
	return every(reapEvery, func(context.Context, time.Time) { ended = m.reapOnce(ended) })
}

// reapOnce reaps those that had ended before already, and returns who has by now.
func (m *masterState) reapOnce(before map[int]bool) map[int]bool {
	now := endedChildren()
	if len(now) == 0 {
		return nil
	}
	for _, w := range m.reports() {
		delete(now, w.PID)
	}
	for pid := range now {
		if before[pid] {
			var status unix.WaitStatus
			if reaped, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); err == nil && reaped == pid {
				m.log.Debug("reaped a process that nobody else waits for", "pid", pid, "status", int(status))
				delete(now, pid)
			}
		}
	}
	return now
}

// inheritsOrphans reports whether processes become children of this one when their parent ends.
func inheritsOrphans() bool {
	if os.Getpid() == 1 {
		return true
	}
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return err == nil && subreaper != 0
}

// ownProc reports whether /proc has this process's own PID namespace.
func ownProc() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
}

// endedChildren returns the children that have ended and were not waited for.
func endedChildren() map[int]bool {
	var info unix.Siginfo
	if unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) != nil || info.Signo == 0 {
		return nil // there is none, and /proc may be large
	}
	all := map[int]bool{}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if state, parent := readStat(pid); state == "Z" && parent == os.Getpid() {
			all[pid] = true
		}
	}
	return all
}
