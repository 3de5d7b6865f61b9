//go:build linux

package pack_test

import (
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// TestMemoryIsDivided has a limit for the whole pack, in the environment or, where this test may make one, of a control
// group: each worker must have its share.
func TestMemoryIsDivided(t *testing.T) {
	t.Parallel()
	limits := map[string]func(*exec.Cmd){
		"environment": func(c *exec.Cmd) { c.Env = append(c.Env, "GOMEMLIMIT=432MiB") },
		"off":         func(c *exec.Cmd) { c.Env = append(c.Env, "GOMEMLIMIT=off") },
	}
	want := map[string]string{"environment": "200", "off": fmt.Sprint(int64(math.MaxInt64) >> 20)}
	if group := memoryGroup(t, 480<<20); group != "" {
		inGroup := func(c *exec.Cmd) {
			inShell(c, "echo $$ >"+group+"/cgroup.procs")
		}
		limits["control group"], want["control group"] = inGroup, "200" // of nine tenths
		limits["control group, off"], want["control group, off"] = func(c *exec.Cmd) {
			inGroup(c)
			limits["off"](c)
		}, want["off"]
	} else if os.Getuid() == 0 {
		t.Log("no memory control group can be made here")
	}
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			p := start(t, "http", limit, "-workers=2")
			l := load(p, 4, 5)
			l.Path = "/memory"
			r := l.Run(t.Context())
			if got := slices.Collect(maps.Keys(r.Bodies)); !slices.Equal(got, []string{want[name]}) || r.Failed() != 0 {
				t.Errorf("workers have %q MiB; want %s\n%v", got, want[name], r)
			}
			p.Stop()
		})
	}
}

// memoryGroup makes a control group with a limit of memory, in which nobody is yet. It returns "" if that cannot be.
func memoryGroup(t *testing.T, limit int) string {
	t.Helper()
	for top, file := range map[string]string{
		"/sys/fs/cgroup":        "memory.max",
		"/sys/fs/cgroup/memory": "memory.limit_in_bytes",
	} {
		group := filepath.Join(top, fmt.Sprintf("pack-test-%d", os.Getpid()))
		if makeGroup(t, group) == nil && setGroup(group, file, strconv.Itoa(limit)) == nil {
			return group
		} // else it is no hierarchy, or memory is not limited in it
	}
	return ""
}
