package upgrade

import (
	"os"
	"os/exec"
	"slices"
	"strings"
)

// inheritedSocket is this end of a socket whose other end is the process that started this one.
type inheritedSocket struct {
	file *os.File
	note note
}

// inheritSocket returns what a note speaks of, nil if it was meant for another process.
func inheritSocket(n note) *inheritedSocket {
	fd := n.descriptor("fd")
	if fd < 0 || !isMeant(fd, n) || !closeOnExec(fd) {
		return nil
	}
	if n.text != "" {
		started.path, started.pathErr = n.text, nil
	}
	return &inheritedSocket{os.NewFile(uintptr(fd), "predecessor"), n}
}

// command returns the command of a program that is started as this one was, gets a socket, and learns of it from a
// variable.
func command(i *Image, variable string, theirs *os.File, env []string) (*exec.Cmd, error) {
	if err := i.check(); err != nil {
		return nil, err
	}
	n := note{numbers: map[string]uint64{"version": estateVersion, "fd": 3}, text: started.path}
	mark, err := n.mark(theirs)
	if err != nil {
		return nil, err
	}
	environ := Environ()
	if variable == successorEnv { // systemd's watchdog is for the new process then: see sd_watchdog_enabled(3)
		environ = slices.DeleteFunc(environ, func(v string) bool { return strings.HasPrefix(v, "WATCHDOG_PID=") })
	}
	return &exec.Cmd{
		Path: i.path, Args: Args(), Dir: Dir(), Stdout: os.Stdout, Stderr: os.Stderr,
		Env:        merge(environ, append(slices.Clip(env), n.setting(variable, "version", "fd", mark))),
		ExtraFiles: []*os.File{theirs},
	}, nil
}
