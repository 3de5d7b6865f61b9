package upgrade

import (
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// runningFile is the very file that this process runs, whatever has become of its name.
const runningFile = "/proc/self/exe"

// privileged reports whether this program has rights that whoever started it did not have: see getauxval(3), AT_SECURE.
func privileged() bool {
	const atSecure = 23
	aux, err := unix.Auxv()
	for _, entry := range aux {
		if entry[0] == atSecure {
			return entry[1] != 0
		}
	}
	return err != nil || os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid()
}

// executedAs returns the path that the kernel was told to execute, where there is no /proc to tell more: see getauxval(3),
// AT_EXECFN.
func executedAs() string {
	const atExecFn = 31
	aux, _ := unix.Auxv()
	for _, entry := range aux {
		if entry[0] == atExecFn {
			text := *(**byte)(unsafe.Pointer(&entry[1])) // above the stack, where it stays
			return unix.BytePtrToString(text)
		}
	}
	return ""
}

// nameProcess names all threads, since any may be asked about, and new ones are named after those that start them. The
// kernel takes the first 15 bytes.
func nameProcess(name string) {
	threads, _ := filepath.Glob("/proc/self/task/*/comm")
	for _, file := range threads {
		if f, err := os.OpenFile(file, os.O_WRONLY, 0); err == nil {
			f.WriteString(name)
			f.Close()
		}
	}
}
