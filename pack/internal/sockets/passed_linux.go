package sockets

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// cannotShare returns why others cannot listen beside a socket that somebody else has opened: that takes SO_REUSEPORT,
// and the same user (socket(7)).
func cannotShare(l socket) (why error) {
	rc, err := l.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		var st unix.Stat_t
		on, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT)
		if err == nil {
			err = unix.Fstat(int(fd), &st)
		}
		switch {
		case err != nil:
			why = err
		case on == 0:
			why = errors.New("its unit does not say ReusePort=yes")
		case int(st.Uid) != os.Geteuid():
			why = fmt.Errorf("it is of user %d, and this process is of user %d", st.Uid, os.Geteuid())
		}
	})
	return errors.Join(why, cerr)
}
