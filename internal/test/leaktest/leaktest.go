// Package leaktest fails a test binary that leaves descriptors or child processes behind.
package leaktest

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of m, as Run does, and exits with their status. It is called from TestMain.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run runs the tests of m and returns their status, or 1 if all passed and something was left open or running that was
// not there before. Where there is no /proc it checks nothing.
func Run(m *testing.M) int {
	before := descriptors()
	status := m.Run()
	if status == 0 {
		if left := settle(before); left != "" {
			fmt.Fprintln(os.Stderr, "leaktest: left behind:\n"+left)
			status = 1
		}
	}
	return status
}

// settle waits a while for what ends on its own, such as a connection that a goroutine is closing, and returns
// a description of what remains.
func settle(before map[string]string) string {
	var left string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		runtime.GC() // closes what has a finalizer; an unreferenced os.File is not this check's concern
		if left = remains(before); left == "" {
			return ""
		}
	}
	return left
}

func remains(before map[string]string) string {
	var b strings.Builder
	for fd, target := range descriptors() {
		if before[fd] != target {
			fmt.Fprintf(&b, "descriptor %s: %s\n", fd, target)
		}
	}
	for _, pid := range children() {
		cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		fmt.Fprintf(&b, "child process %s: %q\n", pid, strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return b.String()
}

// descriptors returns what each open descriptor of this process refers to.
func descriptors() map[string]string {
	open := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return open
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || ofRuntime(target) {
			continue // the descriptor of ReadDir itself, or one the runtime keeps for life
		}
		open[e.Name()] = target
	}
	return open
}

// ofRuntime reports whether a descriptor belongs to the Go runtime, which opens it once when first needed.
func ofRuntime(target string) bool {
	return target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]" ||
		strings.HasPrefix(target, "/sys/fs/cgroup/")
}

// children returns the process IDs of the children of this process, zombies included.
func children() []string {
	var pids []string
	self := strconv.Itoa(os.Getpid())
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		text, _ := os.ReadFile("/proc/" + self + "/task/" + t.Name() + "/children")
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}
