//go:build linux

package procs

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		text string
		want stat
		ok   bool
	}{
		{"812 (nginx) S 1 812 812 0 -1", stat{812, 1, 'S'}, true},
		{"7 (a) b (c) Z 3 7 7", stat{7, 3, 'Z'}, true},
		{"7 (a", stat{}, false},
		{"x (a) S 1", stat{}, false},
		{"7 (a) S", stat{}, false},
		{"", stat{}, false},
	} {
		got, err := parseStat([]byte(tt.text))
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%q: %v, %v; want %v", tt.text, got, err, tt.want)
		}
	}
}

func TestDescend(t *testing.T) {
	children := map[int][]int{1: {5, 2}, 5: {9}, 9: {7}, 3: {4}}
	if got := descend(1, children); !slices.Equal(got, []int{1, 2, 5, 7, 9}) {
		t.Error(got)
	}
}

func TestParseRollup(t *testing.T) {
	rollup := "00400000-7ffc ---p 00000000 00:00 0    [rollup]\nRss:  9000 kB\nPss:                5912 kB\nPss_Dirty:   40 kB\n" +
		"Private_Clean:        8 kB\nPrivate_Dirty:     1200 kB\n"
	if m, err := parseRollup(rollup); m != (Memory{PSS: 5912 << 10, Private: 1208 << 10}) || err != nil {
		t.Error(m, err)
	}
	for _, text := range []string{
		"", "Pss: 5 kB\n", strings.Replace(rollup, "8 kB", "8 MB", 1), strings.Replace(rollup, "1200", "x", 1),
	} {
		if m, err := parseRollup(text); err == nil {
			t.Errorf("%q: %v; want an error", text, m)
		}
	}
}

// TestProcesses looks at this process and a child of it.
func TestProcesses(t *testing.T) {
	child := exec.Command("sleep", "100")
	if err := child.Start(); err != nil {
		t.Skip(err)
	}
	tree, err := Tree(os.Getpid())
	if err != nil || len(tree) < 2 || tree[0] != os.Getpid() || !slices.Contains(tree, child.Process.Pid) {
		t.Errorf("%v, %v; want this process and its child, %d", tree, err, child.Process.Pid)
	}
	child.Process.Kill()
	child.Wait()
	if tree, err := Tree(child.Process.Pid); len(tree) != 0 || err != nil {
		t.Errorf("of a process that has ended: %v, %v", tree, err)
	}
	before, err := CPUTime([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after < before+20*time.Millisecond; {
		if after, err = CPUTime([]int{os.Getpid()}); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := MemoryOf(os.Getpid()); m.Private < 1<<20 || m.PSS < m.Private || err != nil {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestCPUTimeIsAll compares the time of a process that has computed in several threads, of which some have ended, with
// what the kernel says of it at its end.
func TestCPUTimeIsAll(t *testing.T) {
	if os.Getenv("PROCS_TEST_COMPUTE") != "" {
		compute()
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestCPUTimeIsAll$")
	child.Env = append(os.Environ(), "PROCS_TEST_COMPUTE=1")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has computed
		t.Fatal(err)
	}
	got, err := CPUTime([]int{child.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	io.Copy(io.Discard, out)
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	all := child.ProcessState.UserTime() + child.ProcessState.SystemTime()
	if got > all || got < all*8/10 {
		t.Errorf("%v; in the end it was %v", got, all)
	}
}

// compute computes for half a second in threads that end, and some of it in one that does not.
func compute() {
	var threads sync.WaitGroup
	for range 4 {
		threads.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			burn(100 * time.Millisecond)
		})
	}
	threads.Wait()
	burn(100 * time.Millisecond)
	os.Stdout.WriteString(".")
	os.Stdin.Read(make([]byte, 1))
}

// burn computes until this process has used so much more.
func burn(d time.Duration) {
	before, _ := CPUTime([]int{os.Getpid()})
	for now := before; now < before+d; {
		now, _ = CPUTime([]int{os.Getpid()})
	}
}
