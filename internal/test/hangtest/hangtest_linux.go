// Package hangtest makes Go programs hang, for tests.
package hangtest

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sleep sleeps in a system call of which the runtime does not know, and from which it cannot call back: what runs
// goroutines on this thread runs no others meanwhile. Where GOMAXPROCS is 1 the whole program hangs.
func Sleep(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var urg, before unix.Sigset_t // the runtime would interrupt the call with it
	urg.Val[0] = 1 << (syscall.SIGURG - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &urg, &before); err != nil {
		panic(err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	ts := syscall.NsecToTimespec(int64(d))
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
