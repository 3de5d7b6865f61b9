package inplace_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/inplace"
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

// asHelper makes the test binary become itself as often as it says, and then print what it is and has.
const asHelper = "INPLACE_TEST_HELPER"

// looping is the number of a helper that becomes itself until TERM ends it.
const looping = -1

// loop writes a byte each time, and heeds TERM while it can.
func loop() error {
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	os.Stdout.WriteString(".")
	if _, err := inplace.DefaultSignals(syscall.SIGTERM); err != nil {
		return err
	}
	signal.Stop(terms)
	select {
	case <-terms:
		return nil
	default:
		return inplace.Exec("/proc/self/exe", os.Args, os.Environ())
	}
}

// TestNoSignalIsLost ends, at some moments, or many, programs that are becoming another.
func TestNoSignalIsLost(t *testing.T) {
	for i := 0; i < 200; i += test.Times(10, 1) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), asHelper+"="+strconv.Itoa(looping), "GORACE=atexit_sleep_ms=0")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 1+i%3)); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Duration(i) * 150 * time.Microsecond); time.Now().Before(end); {
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		survived := time.AfterFunc(10*time.Second, func() {
			t.Error("TERM was lost")
			cmd.Process.Kill()
		})
		io.Copy(io.Discard, out)
		cmd.Wait()
		survived.Stop()
	}
}

// TestDefaultSignalsAreRestored has a signal arrive before, meanwhile ignored by default, and after.
func TestDefaultSignalsAreRestored(t *testing.T) {
	arrived := make(chan os.Signal, 10)
	signal.Notify(arrived, syscall.SIGWINCH)
	defer signal.Stop(arrived)
	raise := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
			t.Fatal(err)
		}
	}
	raise()
	<-arrived
	restore, err := inplace.DefaultSignals(syscall.SIGWINCH)
	if err != nil {
		t.Fatal(err)
	}
	raise() // which does nothing
	restore()
	raise()
	<-arrived
	if len(arrived) > 0 {
		t.Error("it was not ignored")
	}
}

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(asHelper)); err == nil {
		if err := helper(n); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	leaktest.Main(m)
}

func helper(n int) error {
	if n == looping {
		return loop()
	}
	f, err := os.Open("/dev/null") // stays open on the way, but for the last time
	if err != nil || n == 0 {
		open, _ := os.ReadDir("/proc/self/fd")
		fmt.Println(os.Getpid(), os.Getppid(), len(open), os.Args[1])
		return err
	}
	os.Setenv(asHelper, strconv.Itoa(n-1))
	return inplace.Exec("/proc/self/exe", os.Args, os.Environ(), f)
}

func TestExec(t *testing.T) {
	run := func(times int) string {
		cmd := exec.Command(os.Args[0], "an argument")
		cmd.Env = append(os.Environ(), asHelper+"="+strconv.Itoa(times), "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		prefix := fmt.Sprintf("%d %d ", cmd.Process.Pid, os.Getpid())
		rest, ok := strings.CutPrefix(strings.TrimSpace(string(out)), prefix)
		if !ok {
			t.Errorf("it said %q; want it to begin with %q", out, prefix)
		}
		count, ok := strings.CutSuffix(rest, " an argument")
		if !ok {
			t.Errorf("it said %q; want it to have its argument", out)
		}
		return count
	}
	none, _ := strconv.Atoi(run(0))
	if five, _ := strconv.Atoi(run(5)); five != none+5 {
		t.Errorf("%d descriptors are open, %d without an exec; want 5 more", five, none)
	}
}

// TestExecFails looks at what must be as it was.
func TestExecFails(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	err = inplace.Exec("/nonexistent", nil, nil, r, os.Stderr)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("%v", err)
	}
	for f, want := range map[*os.File]int{r: unix.FD_CLOEXEC, os.Stderr: 0} {
		fd, err := inplace.Descriptor(f)
		if err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags != want || err != nil {
			t.Errorf("descriptor flags of %s: %d, %v; want %d", f.Name(), flags, err, want)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if f == r && (flags&unix.O_NONBLOCK == 0 || err != nil) {
			t.Errorf("the pipe is blocking now, %v", err)
		}
	}
	r.Close()
	if err := inplace.Exec("/proc/self/exe", nil, nil, r); err == nil || !strings.Contains(err.Error(), "closed file") {
		t.Errorf("with a closed file: %v", err)
	}
}
