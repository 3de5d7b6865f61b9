package steer

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/reuseport"
)

// asUser has a test run again, in a process of another user who has some capabilities, and reports whether this is it.
func asUser(t *testing.T, capabilities ...uintptr) bool {
	t.Helper()
	if os.Getenv("STEER_TEST_AS_USER") == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("becoming another user with chosen capabilities needs root")
	}
	rlimit.RemoveMemlock() // the user could not, before Linux 5.11
	cmd := exec.Command(ownCopy(t), "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "STEER_TEST_AS_USER="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: capabilities,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// ownCopy returns a copy of the test binary that anybody may run.
func ownCopy(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "steer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	syscall.ForkLock.RLock() // a child that has the descriptor would make the file busy
	defer syscall.ForkLock.RUnlock()
	if err := errors.Join(os.WriteFile(dir+"/test", content, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir + "/test"
}

// TestWithCapBPFAlone loads the program with the one capability that it needs: the verifier is stricter then than with
// root's.
func TestWithCapBPFAlone(t *testing.T) {
	if !asUser(t, unix.CAP_BPF) {
		return
	}
	// Both, since CI's kernel would never run the one for old kernels.
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"plain": loadPlain, "migrate": loadMigrate} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		c, err := ebpf.NewCollection(spec)
		if err == nil {
			c.Close()
		} else if name == "plain" || !strings.Contains(err.Error(), "invalid bpf_context access") { // before Linux 5.14
			t.Errorf("%s: %+v", name, err)
		}
	}
	s := New(Require(), Epsilon(math.Inf(1)))
	if err := s.Start(onePerCPU(t, 2)); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := serve(t, s, "127.0.0.1:0", 2)
	if local := cpus(t)[0]; p.connect(local, 50)[local] != 50 {
		t.Error("connections went elsewhere")
	}
}

// TestWithoutCapabilities degrades, says why, and fails only if that was asked for.
func TestWithoutCapabilities(t *testing.T) {
	if !asUser(t) {
		return
	}
	err := New(Require()).Start(onePerCPU(t, 2))
	if err == nil || !strings.Contains(err.Error(), "needs CAP_BPF") {
		t.Errorf("required: %v", err)
	}
	s := New()
	if err := s.Start(onePerCPU(t, 2)); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	group, err := reuseport.ListenGroup(t.Context(), "tcp", "127.0.0.1:0", 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range group {
		defer l.Close()
	}
	if err := s.Attach("test", conns(group), nil); err != nil {
		t.Fatal(err)
	}
	mode, why := s.Mode()
	if mode == EBPF || why == nil || !strings.Contains(why.Error(), "needs CAP_BPF") {
		t.Errorf("%v, %v", mode, why)
	}
	slot, err := s.Join()
	if err != nil {
		t.Error(err)
	}
	if err := s.Up(0, slot); err != nil {
		t.Error(err)
	}
	s.Reporter(slot).Accept() // into the void
	s.Leave(slot)
	if err := s.Drain(1); err != nil {
		t.Error(err)
	}
	stats, err := s.Stats()
	if err != nil || stats.Workers[0].State != Up || stats.Workers[1].State != Draining {
		t.Errorf("%v\n%v", err, stats)
	}
	if text := stats.String(); !strings.Contains(text, "steered by "+mode) || strings.Contains(text, "by hash: 0") {
		t.Errorf("it tells what nobody knows:\n%v", text)
	}
	_, err = s.Board()
	for what, err := range map[string]error{"the board": err, "slot 3": s.Up(0, 3)} {
		if !errors.Is(err, unix.EPERM) || errors.Is(err, errNotStarted) {
			t.Errorf("%s: %v; want why there is none", what, err)
		}
	}
	for range 3 {
		if err := s.Attach("test", conns(group), nil); err != nil {
			t.Fatal(err)
		}
	}
	if again, whyNow := s.Mode(); again != mode || whyNow.Error() != why.Error() {
		t.Errorf("attached again: %v, %v; was %v, %v", again, whyNow, mode, why)
	}
}

// TestForbidden starts where a filter of system calls, as of a container, does not let bpf(2) through.
func TestForbidden(t *testing.T) {
	if !asUser(t, unix.CAP_BPF) {
		return
	}
	for errno, want := range map[unix.Errno]string{unix.EPERM: "needs CAP_BPF", unix.ENOSYS: "filter of system calls"} {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // which ends with the goroutine, and the filter with it
			if err := forbidBPF(errno); err != nil {
				t.Error(err)
			}
			done <- New(Require()).Start(onePerCPU(t, 2))
		}()
		if err := <-done; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %q", errno, err, want)
		}
	}
}

// forbidBPF makes bpf(2) fail on this thread.
func forbidBPF(errno unix.Errno) error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
}

// TestNoLockedMemory starts with a limit of locked memory that was lowered to nothing. Since Linux 5.11 it does not
// matter.
func TestNoLockedMemory(t *testing.T) {
	if !asUser(t, unix.CAP_BPF) {
		return
	}
	none := unix.Rlimit{}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &none); err != nil {
		t.Fatal(err)
	}
	s := New(Require())
	err := s.Start(onePerCPU(t, 2))
	if err != nil && !strings.Contains(err.Error(), "RLIMIT_MEMLOCK") {
		t.Error(err)
	}
	s.Close()
}

// TestWorkerProcess has a process without any right report on a board that it was given.
func TestWorkerProcess(t *testing.T) {
	if os.Getenv("STEER_TEST_AS_USER") == t.Name() {
		r, err := OpenReporter(os.NewFile(3, "board"), 7)
		if err != nil {
			t.Fatal(err)
		}
		r.Accept()
		r.Accept()
		r.Close()
		r.Beat()
		return
	}
	s := started(t, 2)
	f, err := s.Board()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(ownCopy(t), "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "STEER_TEST_AS_USER="+t.Name())
	cmd.ExtraFiles = []*os.File{f}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r := s.slots[7].Read(); r.Open != 1 || r.Accepted != 2 || r.Beat != 1 {
		t.Errorf("%+v\n%s", r, out)
	}
}
