package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func inheritsOrphans() bool {
	if !ours() {
		return false
	}
	if os.Getpid() == 1 {
		return true
	}
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return err == nil && subreaper != 0
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

func wait(pid int) (status int, ok bool) {
	var s unix.WaitStatus
	reaped, err := unix.Wait4(pid, &s, unix.WNOHANG, nil)
	return int(s), err == nil && reaped == pid
}
