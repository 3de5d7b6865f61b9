// Package cgroup reads how much processor time the control groups of this process allow it.
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Quota returns how many CPUs' worth of time this process may use: the least of what its control group and
// every ancestor of it that can be seen allow, versions 1 and 2 (cgroups(7)). limited is false if none sets a
// limit, or there are no control groups.
//
// The Go runtime looks at ancestors only in part (golang.org/issue/81180).
func Quota() (cpus float64, limited bool, err error) { return quota(os.DirFS("/")) }

// quota reads from a copy of the root of the file system.
func quota(root fs.FS) (cpus float64, limited bool, err error) {
	r := reader{root, make([]byte, 4<<10)}
	groups, err := r.groups()
	if err != nil {
		return 0, false, ignoreMissing(err)
	}
	mounts, err := r.mounts()
	if err != nil {
		return 0, false, ignoreMissing(err)
	}
	for _, m := range mounts {
		group, ok := groups[m.version]
		if !ok {
			continue
		}
		for dir := range m.upwards(group) {
			n, ok, err := m.version.read(r, dir)
			if err != nil {
				return 0, false, fmt.Errorf("cgroup: %w", err)
			}
			if ok && (!limited || n < cpus) {
				cpus, limited = n, true
			}
		}
	}
	return cpus, limited, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("cgroup: %w", err)
}

// reader reads files with one buffer for all: a master looks every two seconds, at many lines that are nothing to it.
type reader struct {
	root   fs.FS
	buffer []byte
}

// lines has do called for each line of a file.
func (r reader) lines(name string, do func(line []byte)) error {
	file, err := r.root.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	all := bufio.NewScanner(file)
	all.Buffer(r.buffer, math.MaxInt) // an overlay may name hundreds of layers
	for all.Scan() {
		do(all.Bytes())
	}
	return all.Err()
}

// line returns the only line of a file, or "" if there is no such file: the root group has none.
func (r reader) line(name string) (text string, err error) {
	err = r.lines(name, func(line []byte) { text += string(line) })
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return "", nil
	}
	return strings.TrimSpace(text), err
}

// version is a hierarchy that can limit processor time.
type version int

const (
	v1 version = 1 // the one with the cpu controller
	v2 version = 2
)

// read returns the limit that one control group sets itself.
func (v version) read(r reader, dir string) (cpus float64, ok bool, err error) {
	var quota, period string
	if v == v2 {
		text, err := r.line(dir + "/cpu.max") // "max 100000" or "50000 100000"
		if err != nil || text == "" {
			return 0, false, err
		}
		quota, period, _ = strings.Cut(text, " ")
	} else {
		if quota, err = r.line(dir + "/cpu.cfs_quota_us"); err != nil || quota == "" {
			return 0, false, err
		}
		if period, err = r.line(dir + "/cpu.cfs_period_us"); err != nil {
			return 0, false, err
		}
	}
	if quota == "max" || quota == "-1" {
		return 0, false, nil
	}
	q, err1 := strconv.ParseUint(quota, 10, 63)
	p, err2 := strconv.ParseUint(period, 10, 63)
	if err1 != nil || err2 != nil || q == 0 || p == 0 {
		return 0, false, fmt.Errorf("%s: quota %.40q and period %.40q are not numbers", dir, quota, period)
	}
	return float64(q) / float64(p), true, nil
}

// groups returns the control group of this process in each hierarchy, as /proc/self/cgroup names it.
func (r reader) groups() (map[version]string, error) {
	groups := map[version]string{}
	err := r.lines("proc/self/cgroup", func(line []byte) { // "4:cpu,cpuacct:/path" or "0::/path"
		id, rest, _ := strings.Cut(string(line), ":")
		controllers, group, ok := strings.Cut(rest, ":")
		switch {
		case !ok:
		case id == "0" && controllers == "":
			groups[v2] = group
		case slices.Contains(strings.Split(controllers, ","), "cpu"):
			groups[v1] = group
		}
	})
	return groups, err
}

// mount is where a hierarchy, or the part of it below the group top, can be seen.
type mount struct {
	version version
	top     string // the group that is mounted, such as "/"
	dir     string // where, without the leading slash
}

// upwards yields the directory of a group and those of its ancestors as far as the mount shows them.
func (m mount) upwards(group string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		below, ok := strings.CutPrefix(path.Clean(group), strings.TrimSuffix(m.top, "/"))
		if !ok || (below != "" && below[0] != '/') {
			below = "" // a mount of some other part: in a container, what is mounted is ours
		}
		for {
			dir := path.Join(m.dir, below)
			if !fs.ValidPath(dir) || !yield(dir) || below == "" || below == "/" {
				return
			}
			below = path.Dir(below)
		}
	}
}

// mounts finds the hierarchies in /proc/self/mountinfo, proc_pid_mountinfo(5).
func (r reader) mounts() (all []mount, err error) {
	err = r.lines("proc/self/mountinfo", func(line []byte) {
		if !bytes.Contains(line, []byte(" - cgroup")) {
			return // most are others, hundreds where containers run
		}
		left, right, _ := strings.Cut(string(line), " - ")
		fields, types := strings.Fields(left), strings.Fields(right)
		if len(fields) < 5 || len(types) < 3 {
			return
		}
		m := mount{top: unescape(fields[3]), dir: strings.TrimPrefix(unescape(fields[4]), "/")}
		switch {
		case types[0] == "cgroup2":
			m.version = v2
		case types[0] == "cgroup" && slices.Contains(strings.Split(types[2], ","), "cpu"):
			m.version = v1
		default:
			return
		}
		all = append(all, m)
	})
	return all, err
}

// unescape undoes the octal escapes of mountinfo, such as \040 for a space.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
