package upgrade

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is room for the kernel's struct sigaction, whose layout depends on the architecture. All zero, it is
// SIG_DFL without flags on each of them.
type sigaction [16]uintptr

const ignore = 1 // SIG_IGN

// handler returns where the handler is: first, but for MIPS, where the flags are.
func (a *sigaction) handler() *uintptr {
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		return &a[1]
	}
	return &a[0]
}

// setActions changes the actions of signals behind the back of Go's runtime, so that os/signal goes on with those that
// have been received. What is ignored stays so.
func setActions(byDefault, ignored []os.Signal) (made uint64, restore func(), err error) {
	before := map[syscall.Signal]*sigaction{}
	restore = func() {
		for s, old := range before {
			rtSigaction(s, old, nil)
		}
	}
	set := func(signal os.Signal, handler uintptr) error {
		s, ok := signal.(syscall.Signal)
		if !ok || before[s] != nil {
			return nil
		}
		old, action := new(sigaction), new(sigaction)
		if err := rtSigaction(s, nil, old); err != nil || *old.handler() == ignore {
			return err
		}
		*action.handler() = handler
		if err := rtSigaction(s, action, nil); err != nil {
			return err
		}
		before[s] = old
		if handler == ignore && s > 0 && s <= 64 {
			made |= 1 << (s - 1)
		}
		return nil
	}
	for _, s := range byDefault {
		if os.Getpid() == 1 {
			break // it has no default action
		}
		if err := set(s, 0); err != nil {
			restore()
			return 0, nil, err
		}
	}
	for _, s := range ignored {
		if err := set(s, ignore); err != nil {
			restore()
			return 0, nil, err
		}
	}
	return made, restore, nil
}

// otherSignal is one that nobody is interested in.
const otherSignal = syscall.SIGURG

// handling reports whether a thread blocks signals, as all do while a handler of Go's runs.
func handling(signals []os.Signal) bool {
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	return slices.ContainsFunc(threads, func(file string) bool { return inMask(file, "SigBlk", signals) })
}

// pending reports whether signals have been sent that no thread has taken yet.
func pending(signals []os.Signal) bool { return inMask("/proc/self/status", "ShdPnd", signals) }

// inMask reports whether one of some signals is in a mask of a status file: see proc(5).
func inMask(file, name string, signals []os.Signal) bool {
	text, _ := os.ReadFile(file)
	_, rest, _ := strings.Cut(string(text), name+":\t")
	digits, _, _ := strings.Cut(rest, "\n")
	digits = digits[max(0, len(digits)-16):] // MIPS has 128 signals
	mask, _ := strconv.ParseUint(digits, 16, 64)
	return slices.ContainsFunc(signals, func(signal os.Signal) bool {
		s, ok := signal.(syscall.Signal)
		return ok && s > 0 && s <= 64 && mask&(1<<(s-1)) != 0
	})
}

// stopIgnoring gives signals, bit n-1 for signal n, their default action if they are ignored.
func stopIgnoring(signals uint64) {
	for s := range syscall.Signal(64) {
		action := new(sigaction)
		if signals&(1<<s) != 0 && rtSigaction(s+1, nil, action) == nil && *action.handler() == ignore {
			rtSigaction(s+1, new(sigaction), nil)
		}
	}
}

func rtSigaction(s syscall.Signal, action, old *sigaction) error {
	setSize := uintptr(8) // of a set of signals
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		setSize = 16
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(action)),
		uintptr(unsafe.Pointer(old)), setSize, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("rt_sigaction", errno)
	}
	return nil
}
