package upgrade

import (
	"os"
	"syscall"
)

// descriptor returns the number of a file's descriptor. [os.File.Fd] could make it blocking, also for other processes.
func descriptor(f syscall.Conn) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = rc.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// dup copies a descriptor, close-on-exec, in its mode.
func dup(f *os.File) (*os.File, error) { return duplicate(f, f.Name(), 3) }

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
