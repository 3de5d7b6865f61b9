package crash

import (
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// New returns a file in memory for the crash of one process, which cannot make it longer (memfd_create(2)). The caller
// closes it.
func New() (*os.File, error) {
	fd, err := unix.MemfdCreate("gopherpack-crash", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "gopherpack-crash")
	if err := prepare(fd); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func prepare(fd int) error {
	if err := unix.Ftruncate(fd, size); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	return os.NewSyscallError("fcntl", err)
}

const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// Use has a crash of this process written to a descriptor too, which it closes, if that is of a file of New.
func Use(fd int) {
	if is, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil || is != seals {
		return // something else has taken the number, and it is not ours
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "gopherpack-crash")
	defer f.Close()
	debug.SetCrashOutput(f, debug.CrashOptions{}) // else the log does without
}
