// Package inplace replaces the running program by another in the same process, execve(2): the process ID, the parent
// and the children stay what they are.
package inplace

import (
	"fmt"
	"os"
)

// Exec becomes the program at path, with the files open under the numbers that [Descriptor] returns. It returns only if
// that fails, and then everything is as it was.
//
// Signals are the caller's concern, since the new program has none of the old one's handlers: what is ignored stays
// ignored, and what has a handler has its default effect until the new program asks for it. A mask would not help: Go
// programs unblock HUP, INT, QUIT and TERM when they start, before they have a handler for them.
func Exec(path string, args, env []string, files ...*os.File) error {
	if err := execve(path, args, env, files); err != nil {
		return fmt.Errorf("become %s: %w", path, err)
	}
	return nil
}

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
