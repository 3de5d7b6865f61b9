//go:build unix

package fdmsg

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// oobSpace has room for all descriptors that can come with a message (SCM_MAX_FD): those for which there was none would
// be closed by the kernel, which may have to wait.
var oobSpace = unix.CmsgSpace(253 * 4)

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

func areTooMany(err error) bool { return errors.Is(err, syscall.ETOOMANYREFS) }

func dontLinger(c syscall.Conn) {
	rc, err := c.SyscallConn()
	if err != nil {
		return
	}
	rc.Control(func(fd uintptr) {
		l, err := unix.GetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER)
		if err == nil && l.Onoff != 0 && l.Linger > 0 {
			unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
		}
	})
}

func rights(fds []int) []byte { return unix.UnixRights(fds...) }

func truncated(flags int) bool { return flags&unix.MSG_CTRUNC != 0 }

// parseRights returns the descriptors that came with a message; those before an error are valid.
func parseRights(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, os.NewSyscallError("parse control message", err)
	}
	for i := range messages {
		more, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, os.NewSyscallError("parse descriptors", err)
		}
		fds = append(fds, more...)
	}
	return fds, nil
}
