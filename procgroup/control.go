package procgroup

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

// controlEnv tells a child which descriptor is its control socket, and who its parent is: "3,1234". The second
// number lets a program that the child starts, and that inherits the variable, see that it is not meant.
const controlEnv = "PROCGROUP_LIFELINE"

var (
	// ErrNotChild is the error of Inherit in a process that no Group started.
	ErrNotChild = errors.New("not started by a process group")

	// ErrDescendant is the error of Inherit in a process that a child of a Group has started, and that has inherited
	// the child's control socket: such as the program of a script that does not exec it. It matches ErrNotChild.
	ErrDescendant = fmt.Errorf("%w, but by a child of one", ErrNotChild)

	// ErrOrphan is the error of Inherit in a process whose parent is gone already.
	ErrOrphan = errors.New("the parent process is gone")
)

// Inherit returns the control socket of this process to the [Group] that started it. The caller closes it; a second
// call returns [ErrNotChild], since the first takes the control socket out of the environment, so that programs
// started from here on do not take it for theirs.
//
// The control socket is a stream socket. Reading from it gives what the parent's Group.Serve writes, by default
// nothing, and [io.EOF] once the parent has ended, even by SIGKILL: a child that shall not outlive its parent
// reads, and ends when the read does. By default the first byte that is written to it says that this process
// is ready.
func Inherit() (*net.UnixConn, error) {
	value, ok := os.LookupEnv(controlEnv)
	if !ok {
		return nil, ErrNotChild
	}
	os.Unsetenv(controlEnv)
	fd, parent, err := parseControl(value)
	if err != nil {
		return nil, fmt.Errorf("procgroup: environment variable %s: %w", controlEnv, err)
	}
	// A parent outside of this PID namespace has no number in it: it is 0.
	if now := os.Getppid(); now != parent && now != 0 {
		if controlEnded(fd) {
			return nil, ErrOrphan
		}
		if isSocket(fd) {
			return nil, ErrDescendant
		}
		return nil, ErrNotChild // it has the variable from elsewhere
	}
	conn, err := openControl(fd)
	if err != nil {
		return nil, fmt.Errorf("procgroup: open control socket, descriptor %d: %w", fd, err)
	}
	return conn, nil
}

func formatControl(fd, parent int) string { return fmt.Sprintf("%d,%d", fd, parent) }

func parseControl(value string) (fd, parent int, err error) {
	first, second, _ := strings.Cut(value, ",")
	fd, err1 := strconv.Atoi(first)
	parent, err2 := strconv.Atoi(second)
	if err1 != nil || err2 != nil || fd < 3 || parent < 1 {
		return 0, 0, fmt.Errorf("%.40q is not a descriptor and a process ID", value)
	}
	return fd, parent, nil
}

// serveFirstByte is the default of Group.Serve.
func serveFirstByte(p *Process, control *net.UnixConn) {
	if n, _ := control.Read(make([]byte, 1)); n == 1 {
		p.Ready()
	}
	io.Copy(io.Discard, control)
}
