//go:build !plan9

package worker

import "syscall"

var (
	// shortages are the errors of a system that lacks descriptors or memory for now.
	shortages = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}

	// aborts are those of an accept(2) of which nothing came, and that says nothing about the next.
	aborts = []error{syscall.ECONNABORTED, syscall.EINTR}
)
