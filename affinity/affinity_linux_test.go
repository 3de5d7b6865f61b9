package affinity_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
)

// asThreads makes the test binary a program with many threads that reports its CPUs, then waits for the end
// of its standard input.
const asThreads = "AFFINITY_TEST_THREADS"

// asAllowed makes it a program that prints what Allowed(0) returns.
const asAllowed = "AFFINITY_TEST_ALLOWED"

// asOutsider makes it a program that tells what the calls say that rest on /proc.
const asOutsider = "AFFINITY_TEST_OUTSIDER"

func init() {
	if os.Getenv(asOutsider) != "" {
		outsider()
		os.Exit(0)
	}
	if os.Getenv(asAllowed) != "" {
		fmt.Println(affinity.Allowed(0))
		os.Exit(0)
	}
	if os.Getenv(asThreads) == "" {
		return
	}
	var started, hold sync.WaitGroup
	hold.Add(1)
	for range 20 {
		started.Add(1)
		go func() {
			runtime.LockOSThread() // one thread each
			started.Done()
			hold.Wait()
		}()
	}
	started.Wait()
	fmt.Println(runtime.NumCPU(), runtime.GOMAXPROCS(0))
	bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(0)
}

// threads starts that program by way of start and returns the line that it printed.
func threads(t *testing.T, start func(*exec.Cmd) error) (pid int, line string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asThreads+"=1", "GOMAXPROCS=", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("helper: %v", err)
		}
	})
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("helper said %q: %v", line, err)
	}
	return cmd.Process.Pid, strings.TrimSpace(line)
}

// masks returns the distinct masks of all threads of a process, by how many threads have them.
func masks(t *testing.T, pid int) map[string]int {
	t.Helper()
	all, err := affinity.Threads(pid)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, th := range all {
		found[th.Mask.String()]++
	}
	return found
}

func current(t *testing.T) affinity.Set {
	t.Helper()
	s, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDoPinsEveryThreadOfAChild(t *testing.T) {
	for cpu := range current(t).All() {
		pid, line := threads(t, func(cmd *exec.Cmd) error { return affinity.Do(affinity.Of(cpu), cmd.Start) })
		if line != "1 1" {
			t.Errorf("CPU %d: NumCPU and GOMAXPROCS of the child = %q, want 1 1", cpu, line)
		}
		got := masks(t, pid)
		if n := got[fmt.Sprint(cpu)]; len(got) != 1 || n < 20 {
			t.Errorf("CPU %d: threads by mask = %v, want at least 20, all with mask %d", cpu, got, cpu)
		}
	}
}

func TestDoLeavesNoThreadBound(t *testing.T) {
	before := current(t)
	one, _ := before.First()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			err := affinity.Do(affinity.Of(one), func() error {
				if s, err := affinity.Current(); err != nil || s != affinity.Of(one) {
					return fmt.Errorf("inside: %q, %v", s, err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := masks(t, os.Getpid()); len(got) != 1 || got[before.String()] == 0 {
		t.Errorf("threads by mask = %v, want all with %q", got, before)
	}
}

func TestDoPassesOn(t *testing.T) {
	one, _ := current(t).First()
	oops := errors.New("oops")
	if err := affinity.Do(affinity.Of(one), func() error { return oops }); err != oops {
		t.Errorf("error: %v", err)
	}
	func() {
		defer func() {
			if v := recover(); v != "boom" {
				t.Errorf("panic: %v", v)
			}
		}()
		affinity.Do(affinity.Of(one), func() error { panic("boom") })
	}()
	ended := make(chan bool, 1)
	go func() {
		defer func() { ended <- true }()
		affinity.Do(affinity.Of(one), func() error { runtime.Goexit(); return nil })
		ended <- false
	}()
	if !<-ended {
		t.Error("Goexit in f did not end the caller")
	}
}

func TestBadSets(t *testing.T) {
	never := func() error { t.Error("f was called"); return nil }
	for _, s := range []affinity.Set{{}, affinity.Of(affinity.MaxCPUs - 1)} {
		if err := affinity.Do(s, never); !errors.Is(err, unix.EINVAL) {
			t.Errorf("Do(%q): %v, want EINVAL", s, err)
		}
		if undo, err := affinity.Pin(s); !errors.Is(err, unix.EINVAL) || undo != nil {
			t.Errorf("Pin(%q): %v, want EINVAL", s, err)
		}
		if err := affinity.Process(0, s); !errors.Is(err, unix.EINVAL) {
			t.Errorf("Process(0, %q): %v, want EINVAL", s, err)
		}
	}
	has, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("this process has CPUs %q", has)
	if err := affinity.Do(affinity.Of(affinity.MaxCPUs-1), never); !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want an error that says %s", err, want)
	}
}

func TestPin(t *testing.T) {
	before := current(t)
	for cpu := range before.All() {
		undo, err := affinity.Pin(affinity.Of(cpu))
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			runtime.Gosched()
			if got := current(t); got != affinity.Of(cpu) {
				t.Fatalf("pinned to %d, on %q", cpu, got)
			}
		}
		if err := undo(); err != nil {
			t.Fatal(err)
		}
		if got := current(t); got != before {
			t.Errorf("after undo: %q, want %q", got, before)
		}
	}
}

func TestProcess(t *testing.T) {
	allowed := current(t)
	pid, _ := threads(t, (*exec.Cmd).Start)
	for cpu := range allowed.All() {
		if err := affinity.Process(pid, affinity.Of(cpu)); err != nil {
			t.Fatal(err)
		}
		if got := masks(t, pid); len(got) != 1 || got[fmt.Sprint(cpu)] < 20 {
			t.Errorf("threads by mask = %v, want all on %d", got, cpu)
		}
	}
	if err := affinity.Process(pid, allowed); err != nil {
		t.Fatal(err)
	}
	if got := masks(t, pid); len(got) != 1 || got[allowed.String()] == 0 {
		t.Errorf("threads by mask = %v, want all on %q", got, allowed)
	}
	all, _ := affinity.Parse(fmt.Sprintf("0-%d", affinity.MaxCPUs-1))
	if err := affinity.Process(pid, all); err != nil {
		t.Fatal(err)
	}
	if cpuset, err := affinity.Allowed(pid); err != nil || !allowed.IsSubsetOf(cpuset) {
		t.Errorf("with all CPUs it may use %q, %v; want at least %q", cpuset, err, allowed)
	}
}

func TestProcessGone(t *testing.T) {
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Skip(err)
	}
	if err := affinity.Process(cmd.Process.Pid, current(t)); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a process that has ended: %v", err)
	}
}

func TestSpreadHere(t *testing.T) {
	allowed := current(t)
	for p := affinity.PerCPU; p <= affinity.PerPackage; p++ {
		sets, err := affinity.Spread(7, p)
		if err != nil || len(sets) != 7 {
			t.Fatalf("%s: %v, %v", p, sets, err)
		}
		for _, s := range sets {
			if s == (affinity.Set{}) || s.Minus(allowed) != (affinity.Set{}) {
				t.Errorf("%s: a worker gets %q, allowed is %q", p, s, allowed)
			}
		}
	}
}

func TestAllowed(t *testing.T) {
	before, err := affinity.Allowed(0)
	if err != nil {
		t.Fatal(err)
	}
	if current, err := affinity.Current(); err != nil || current != before {
		t.Errorf("%v, %v; want %v", current, err, before)
	}
	undo, err := affinity.Pin(affinity.Of(slices.Min(slices.Collect(before.All()))))
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	if pinned, err := affinity.Allowed(0); err != nil || pinned != before {
		t.Errorf("with a thread pinned: %v, %v; want %v", pinned, err, before)
	}
	if _, err := affinity.Allowed(1 << 30); err == nil {
		t.Error("a process that is not there has CPUs")
	}
}

// TestThreads compares with what /proc says of a program with many threads.
func TestThreads(t *testing.T) {
	one, _ := current(t).First()
	pid, _ := threads(t, func(cmd *exec.Cmd) error { return affinity.Do(affinity.Of(one), cmd.Start) })
	all, err := affinity.Threads(pid)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 || all[0].ID != pid {
		t.Errorf("%d threads, the first of which is %d; want at least 20, and %d", len(all), all[0].ID, pid)
	}
	for i, th := range all {
		if th.Mask != affinity.Of(one) || th.LastCPU != one || i > 0 && th.ID <= all[i-1].ID {
			t.Errorf("thread %+v of %d; want it on CPU %d, and ascending order", th, pid, one)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, th.ID))
		if err != nil {
			continue // it has ended
		}
		for _, want := range []string{"Name:\t" + th.Name + "\n", "Cpus_allowed_list:\t" + th.Mask.String() + "\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("thread %d: want %q in %s", th.ID, want, status)
			}
		}
	}
}

func TestThreadsOfThisProcess(t *testing.T) {
	undo, err := affinity.Pin(current(t))
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	all, err := affinity.Threads(0)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(th affinity.Thread) bool { return th.ID == unix.Gettid() }) {
		t.Errorf("%+v: this thread, %d, is not there", all, unix.Gettid())
	}
	if _, err := affinity.Threads(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that is not there: %v", err)
	}
}

// TestAllowedWithoutProc runs a program where /proc is not mounted, as in some chroots.
func TestAllowedWithoutProc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("hiding /proc takes root")
	}
	cmd := exec.Command("sh", "-c", `mount --make-rprivate / && mount -t tmpfs none /proc && exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), asAllowed+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.Output()
	if want := fmt.Sprintln(current(t), error(nil)); err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

func outsider() {
	before, _ := affinity.Current()
	one, _ := before.First()
	fmt.Println(affinity.Process(0, affinity.Of(one)))
	fmt.Println(affinity.Process(os.Getpid(), affinity.Of(one)))
	_, err := affinity.Threads(0)
	fmt.Println(err)
	_, err = affinity.Allowed(os.Getpid())
	fmt.Println(err)
	fmt.Println(affinity.Allowed(0))
}

// TestForeignProc runs a program whose /proc has numbers for processes and threads that are not its own, as where only
// the PID namespace is new: it must not take other threads for its own, nor say that it has bound what it has not.
func TestForeignProc(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asOutsider+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID}
	out, err := cmd.Output()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) {
		t.Skip("no namespaces: ", err)
	}
	if err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for _, line := range lines[:len(lines)-1] {
		if !strings.Contains(line, "/proc is of another PID namespace") {
			t.Errorf("%q says nothing of /proc", line)
		}
	}
	if want := fmt.Sprint(current(t), error(nil)); len(lines) != 5 || lines[4] != want {
		t.Errorf("it said %q; want %q in the end", lines, want)
	}
}

// TestSysAgrees compares with the kernel's own lists.
func TestSysAgrees(t *testing.T) {
	for name, read := range map[string]func() (affinity.Set, error){
		"isolated": affinity.Isolated, "offline": affinity.Offline,
	} {
		text, err := os.ReadFile("/sys/devices/system/cpu/" + name)
		if err != nil {
			t.Skip(err)
		}
		if s, err := read(); err != nil || s.String() != strings.TrimSpace(string(text)) {
			t.Errorf("%s: %q, %v; want %q", name, s, err, text)
		}
	}
}

// TestCPUsOutOfReach has a set whose CPUs are beyond what the C library's masks hold, and one that is there.
func TestCPUsOutOfReach(t *testing.T) {
	one, _ := current(t).First()
	undo, err := affinity.Pin(affinity.Of(one, 1100, affinity.MaxCPUs-1))
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	if got := current(t); got != affinity.Of(one) {
		t.Errorf("bound to %q, want %d", got, one)
	}
}

// TestAllowedIsCheap has many threads, as a master has, which asks every two seconds: a mask of 1 KB for each would be
// garbage.
func TestAllowedIsCheap(t *testing.T) {
	const more = 50
	var began, ended sync.WaitGroup
	release := make(chan struct{})
	began.Add(more)
	for range more {
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			began.Done()
			<-release
		})
	}
	began.Wait()
	defer ended.Wait()
	defer close(release)
	const runs = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if _, err := affinity.Allowed(0); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / runs; each > more*512 {
		t.Errorf("%d bytes are allocated for %d threads and more", each, more)
	}
}
