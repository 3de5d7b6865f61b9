//go:build linux

// Package procs tells what a process and its descendants use. It reads /proc (proc(5)) and the clocks of processes
// (clock_getcpuclockid(3)).
package procs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tree returns a process and all its descendants, zombies left out, the process first and the others in order.
func Tree(pid int) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	alive := false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		s, err := parseStat(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if s.state == 'Z' || s.state == 'X' {
			continue
		}
		alive = alive || s.pid == pid
		children[s.parent] = append(children[s.parent], s.pid)
	}
	if !alive {
		return nil, nil
	}
	return descend(pid, children), nil
}

// descend returns a process and its descendants by the children of each.
func descend(pid int, children map[int][]int) []int {
	var below []int
	for waiting := slices.Clone(children[pid]); len(waiting) > 0; waiting = waiting[1:] {
		below = append(below, waiting[0])
		waiting = append(waiting, children[waiting[0]]...)
	}
	slices.Sort(below)
	return append([]int{pid}, below...)
}

// stat is the part of /proc/PID/stat that is of use here.
type stat struct {
	pid, parent int
	state       byte
}

// parseStat parses /proc/PID/stat, whose second field is a name in parentheses that may have anything in it.
func parseStat(text []byte) (s stat, err error) {
	open, last := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || last < open {
		return s, fmt.Errorf("no name in %.60q", text)
	}
	if s.pid, err = strconv.Atoi(strings.TrimSpace(string(text[:open]))); err != nil {
		return s, err
	}
	fields := strings.Fields(string(text[last+1:]))
	if len(fields) < 2 || len(fields[0]) != 1 {
		return s, fmt.Errorf("too few fields in %.60q", text)
	}
	s.state = fields[0][0]
	s.parent, err = strconv.Atoi(fields[1])
	return s, err
}

// CPUTime returns the processor time that processes have used so far, all threads of each, also those that have ended,
// in nanoseconds as the scheduler counts them. (Those of /proc/PID/stat are of 10 ms each.)
func CPUTime(pids []int) (total time.Duration, err error) {
	for _, pid := range pids {
		var t unix.Timespec
		if err := unix.ClockGettime(clockOf(pid), &t); err != nil {
			return 0, fmt.Errorf("processor time of process %d: %w", pid, os.NewSyscallError("clock_gettime", err))
		}
		total += time.Duration(t.Nano())
	}
	return total, nil
}

// clockOf returns the clock of the processor time of a whole process: its PID, negated, and CPUCLOCK_SCHED.
func clockOf(pid int) int32 { return int32(^pid<<3 | 2) }

// Memory is what a process has in memory, in bytes.
type Memory struct {
	PSS     int64 // proportional set size: its own pages, and its share of those that others have mapped, too
	Private int64 // pages that nobody else has mapped
}

// MemoryOf returns that of a process.
func MemoryOf(pid int) (Memory, error) {
	file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	text, err := os.ReadFile(file)
	if err != nil {
		return Memory{}, err
	}
	m, err := parseRollup(string(text))
	if err != nil {
		return Memory{}, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

func parseRollup(text string) (m Memory, err error) {
	sum := map[string]*int64{"Pss": &m.PSS, "Private_Clean": &m.Private, "Private_Dirty": &m.Private}
	found := 0
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		to := sum[name]
		if to == nil {
			continue
		}
		found++
		value, ok := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if !ok {
			return Memory{}, fmt.Errorf("%q is not in kB", strings.TrimSpace(line))
		}
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("%s: %w", name, err)
		}
		*to += n << 10
	}
	if found != len(sum) {
		return Memory{}, errors.New("not all of Pss, Private_Clean and Private_Dirty are there")
	}
	return m, nil
}
