package systemd

import (
	"os"
	"syscall"
)

// numbers returns what tells a file from others.
func numbers(f *os.File) (device, inode uint64, ok bool) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return uint64(stat.Dev), stat.Ino, true // Dev has 32 bits on mips
}
