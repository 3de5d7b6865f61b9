//go:build unix

// Package terminal tells about the controlling terminal of this process (tty(4)), which sends signals of its own: HUP
// when it is hung up, and TTIN and TTOU to who reads or writes in the background (termios(3), tostop).
package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// Controls reports whether this process has a controlling terminal. One that was hung up is none any more.
func Controls() bool {
	f, err := os.Open("/dev/tty")
	if err == nil {
		f.Close()
	}
	return err == nil
}

// InBackground reports whether this process is in the background of a controlling terminal.
func InBackground() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer f.Close()
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	own, gerr := unix.Getpgid(0)
	return err == nil && gerr == nil && int32(group) != int32(own)
}
