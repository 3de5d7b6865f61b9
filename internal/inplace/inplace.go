// Package inplace replaces the running program by another in the same process, execve(2): the process ID, the parent
// and the children stay what they are.
package inplace

import (
	"fmt"
	"os"
	"time"
)

// Exec becomes the program at path, with the files open under the numbers that [Descriptor] returns. It returns only if
// that fails, and then everything is as it was.
//
// The new program has none of the old one's handlers for signals: what is ignored stays ignored, and what has a handler
// has its default effect until the new program asks for it. A mask would not help: Go programs unblock HUP, INT, QUIT and
// TERM when they start, before they have a handler for them. See [DefaultSignals] for the moments before.
func Exec(path string, args, env []string, files ...*os.File) error {
	if err := execve(path, args, env, files); err != nil {
		return fmt.Errorf("become %s: %w", path, err)
	}
	return nil
}

// DefaultSignals gives signals the effect that they have by default, until restore is called, while os/signal goes on with
// those that the program has received. Use it before [Exec] for signals that end a program: a handler of Go's runs on some
// thread, and if execve ends that thread the signal is lost with it, whereas the kernel's default action is taken when the
// signal is sent. It waits a moment for handlers that have begun.
//
// The first process of a PID namespace has no default action, so for that one it does nothing.
func DefaultSignals(signals ...os.Signal) (restore func(), err error) {
	if os.Getpid() == 1 {
		return func() {}, nil
	}
	if restore, err = defaultSignals(signals); err == nil {
		time.Sleep(settle)
	}
	return restore, err
}

// settle is how long a thread may take from the kernel's delivery of a signal to the end of Go's handler: microseconds,
// unless another thread has its CPU.
const settle = 20 * time.Millisecond

// Descriptor returns the number of a file's descriptor, which stays in its mode; [os.File.Fd] could make it blocking.
func Descriptor(f *os.File) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = rc.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}
