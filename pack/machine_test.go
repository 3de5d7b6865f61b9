//go:build linux

package pack_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
)

// refuseCalls has the test binary run itself again, under a filter that refuses the system calls with these numbers, as
// the profiles of container runtimes and of systemd do. After a colon stands how much the second argument must be for
// the call not to be refused.
const refuseCalls = "PACK_TEST_REFUSE"

func init() {
	calls, ok := os.LookupEnv(refuseCalls)
	if !ok {
		return
	}
	os.Unsetenv(refuseCalls)
	runtime.LockOSThread()
	if err := refuse(strings.Fields(calls)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
	os.Exit(1)
}

// refuse has system calls of this thread give EPERM, or EINVAL those whose second argument is too little.
func refuse(calls []string) error {
	const (
		load      = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		ifEqual   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ifAtLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		end       = unix.BPF_RET | unix.BPF_K
		number    = 0      // where seccomp_data has it
		second    = 16 + 8 // the lower half, on a little-endian machine
	)
	var filter []unix.SockFilter
	for _, c := range calls {
		var call, least uint32
		if n, err := fmt.Sscanf(c+":0", "%d:%d", &call, &least); n != 2 {
			return err
		}
		if least == 0 {
			filter = append(filter,
				unix.SockFilter{Code: load, K: number},
				unix.SockFilter{Code: ifEqual, K: call, Jf: 1},
				unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
			continue
		}
		filter = append(filter,
			unix.SockFilter{Code: load, K: number},
			unix.SockFilter{Code: ifEqual, K: call, Jf: 3},
			unix.SockFilter{Code: load, K: second},
			unix.SockFilter{Code: ifAtLeast, K: least, Jt: 1},
			unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)})
	}
	filter = append(filter, unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

var (
	setMask = strconv.Itoa(unix.SYS_SCHED_SETAFFINITY)
	getMask = strconv.Itoa(unix.SYS_SCHED_GETAFFINITY)
	limits  = strconv.Itoa(unix.SYS_PRLIMIT64)
	bind    = strconv.Itoa(unix.SYS_BIND)
	pair    = strconv.Itoa(unix.SYS_SOCKETPAIR)
)

// refused has a program start with system calls refused.
func refused(calls ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		c.Env = append(c.Env, refuseCalls+"="+strings.Join(calls, " "))
	}
}

// servesUnpinned fails the test if not so many workers serve, on any CPU, and the log does not say why.
func (p *running) servesUnpinned(workers int, why string) {
	p.t.Helper()
	up := p.Logged(1, "pack is up")
	if up["workers"] != float64(workers) || !strings.Contains(fmt.Sprint(up["unpinned"]), why) {
		p.t.Errorf("%v; want %d workers, unpinned since %q", up, workers, why)
	}
	_, said := answers(p.t, load(p, 8, 10*workers).Run(p.t.Context()))
	for _, text := range said {
		if !strings.HasSuffix(text, "pinned=false procs=1") {
			p.t.Errorf("a worker says %q", text)
		}
	}
}

func TestPinningRefused(t *testing.T) {
	t.Parallel()
	cpus := allowed(t, 1)
	p := start(t, "http", refused(setMask))
	p.servesUnpinned(cpus.Len(), "sched_setaffinity: operation not permitted")
	for signal, done := range map[syscall.Signal]string{syscall.SIGUSR2: "upgraded", syscall.SIGTTIN: "number of workers changed"} {
		p.Signal(signal)
		if line := p.Logged(1, done); !strings.Contains(fmt.Sprint(line["unpinned"]), "sched_setaffinity") {
			t.Errorf("%v; want to be told that the workers are not pinned", line)
		}
	}
	p.Logged(2, "generation has drained") // its workers have no threads any more
	for _, pid := range p.Workers() {
		if got := masks(t, pid); len(got) != 1 || !got[cpus.String()] {
			t.Errorf("process %d has the masks %v, want %q", pid, got, cpus)
		}
	}
	p.Stop()
}

// TestLimitsRefused has a filter that does not let a process see its limits. That is an error for who asks for some.
func TestLimitsRefused(t *testing.T) {
	t.Parallel()
	p := start(t, "http", refused(limits), "-workers=2")
	p.Logged(1, "pack is up")
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	p.Stop()
	p = start(t, "http", refused(limits), "-files=100")
	if status := p.Wait(inTime); status != 1 || !p.Said("prlimit: operation not permitted") {
		t.Errorf("exit status %d; want 1, and why", status)
	}
}

// TestBindRefused has a filter that lets nobody bind a socket, whatever its port.
func TestBindRefused(t *testing.T) {
	t.Parallel()
	p := start(t, "http", refused(bind), "-address=tcp 127.0.0.1:60000")
	const want = "pack: listen tcp 127.0.0.1:60000: bind: operation not permitted (not for its number: "
	if status := p.Wait(inTime); status != 1 || !p.Said(want) {
		t.Errorf("exit status %d; want 1, and %q", status, want)
	}
}

// TestUnixSocketsRefused has a filter that forbids what master and worker talk over.
func TestUnixSocketsRefused(t *testing.T) {
	t.Parallel()
	p := start(t, "http", refused(pair))
	const want = "socketpair: operation not permitted (processes talk over Unix sockets: "
	if status := p.Wait(inTime); status != 1 || !p.Said(want) {
		t.Errorf("exit status %d; want 1, and %q", status, want)
	}
}

// TestMaskRefused has a filter that does not even let a process see its mask.
func TestMaskRefused(t *testing.T) {
	t.Parallel()
	p := start(t, "http", refused(setMask, getMask), "-workers=2")
	p.servesUnpinned(2, "sched_getaffinity: operation not permitted")
	p.Stop()
}

// TestManyPossibleCPUs has what a kernel does that counts with 1100 CPUs: masks that are shorter are not taken.
func TestManyPossibleCPUs(t *testing.T) {
	t.Parallel()
	cpus := allowed(t, 1)
	const size = 1100/64*8 + 8
	p := start(t, "http", refused(getMask+":"+strconv.Itoa(size)))
	if up := p.Logged(1, "pack is up"); up["cpus"] != cpus.String() {
		t.Errorf("%v; want a worker on each of %q", up, cpus)
	}
	p.Stop()
}

// TestPinningRefusedThatWasAsked names CPUs, and a placement, which is an error where nobody can be pinned.
func TestPinningRefusedThatWasAsked(t *testing.T) {
	t.Parallel()
	first, _ := allowed(t, 1).First()
	for arg, want := range map[string]string{
		"-cpus=" + strconv.Itoa(first): fmt.Sprintf(`pack: CPUs "%d": workers cannot be pinned here, so name none: `, first),
		"-placement=core":              `pack: placement "core": workers cannot be pinned here, so name none: `,
	} {
		p := start(t, "http", refused(setMask), arg)
		if status := p.Wait(inTime); status != 1 || !p.Said(want) {
			t.Errorf("%s: exit status %d; want 1, and %q", arg, status, want)
		}
	}
}

// otherSys has a program start with a /sys that a shell has changed.
func otherSys(t *testing.T, script string) func(*exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("changing /sys needs CAP_SYS_ADMIN")
	}
	return func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		inShell(c, "mount --make-rprivate / && "+script)
	}
}

// TestSysTellsOtherCPUs is what lxcfs does to /sys: its list of CPUs is not about those of the process.
func TestSysTellsOtherCPUs(t *testing.T) {
	t.Parallel()
	change := otherSys(t, "mount --bind $LIST /sys/devices/system/cpu/online")
	all := slices.Collect(allowed(t, 2).All())
	for _, tt := range []struct {
		list string
		mask affinity.Set
	}{
		{fmt.Sprint(all[0]), affinity.Of(all[len(all)-1])}, // another CPU
		{fmt.Sprint(all[0]), affinity.Of(all...)},          // fewer CPUs
		{"", affinity.Of(all...)},                          // none
	} {
		list := t.TempDir() + "/online"
		if err := os.WriteFile(list, []byte(tt.list+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		var p *running
		err := affinity.Do(tt.mask, func() error {
			p = start(t, "http", func(c *exec.Cmd) { change(c); c.Env = append(c.Env, "LIST="+list) })
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		up := p.Logged(1, "pack is up")
		if up["cpus"] != tt.mask.String() || up["workers"] != float64(tt.mask.Len()) {
			t.Errorf("/sys has %q, the mask %q: %v; want a worker on each CPU of the mask", tt.list, tt.mask, up)
		}
		p.Stop()
	}
}

// TestUnreadableSys runs a pack that may not read what /sys tells of CPUs.
func TestUnreadableSys(t *testing.T) {
	t.Parallel()
	cpus := allowed(t, 1)
	hide := otherSys(t, `mount -t tmpfs -o mode=000 none /sys/devices/system &&
		exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0" "$@"`)
	nobody := asNobody(t)
	change := func(c *exec.Cmd) { nobody(c); hide(c) }
	p := start(t, "http", change)
	p.servesUnpinned(cpus.Len(), "/sys/devices/system: open cpu/online: permission denied")
	p.Stop()

	first, _ := cpus.First()
	p = start(t, "http", change, "-cpus="+strconv.Itoa(first))
	if up := p.Logged(1, "pack is up"); up["cpus"] != strconv.Itoa(first) {
		t.Errorf("CPU %d was named: %v", first, up)
	}
	p.Stop()

	p = start(t, "http", change, "-placement=node")
	const want = `pack: placement "node": which CPUs share what is not known here`
	if status := p.Wait(inTime); status != 1 || !p.Said(want) {
		t.Errorf("a placement was named: exit status %d; want 1, and %q", status, want)
	}
}
