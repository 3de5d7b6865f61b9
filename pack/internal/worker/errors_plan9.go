package worker

import "syscall"

var (
	shortages = []error{syscall.EMFILE}
	aborts    = []error{syscall.EINTR}
)
