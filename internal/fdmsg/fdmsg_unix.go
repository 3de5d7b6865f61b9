//go:build unix

package fdmsg

import (
	"os"

	"golang.org/x/sys/unix"
)

var oobSpace = unix.CmsgSpace(MaxFiles * 4)

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
