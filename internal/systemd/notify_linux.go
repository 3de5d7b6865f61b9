package systemd

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sendTime is how long systemd may take to have room for a message.
const sendTime = 5 * time.Second

// Notify tells systemd something, if it wants to know. It may wait for seconds, if systemd is busy. It is safe for
// concurrent use.
func (s Service) Notify(m Message) error {
	if s.Socket == "" {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	return s.send(m.Text(time.Duration(now.Nano())), nil)
}

// Keep has systemd keep a copy of a descriptor, which it passes to the process by that name that it starts when this one
// has ended, by whatever. At most [Service.Store] are kept, and one that is kept already is not kept again. A name has at
// most 255 characters of ASCII, and no colon.
func (s Service) Keep(name string, fd int) error {
	return s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, []int{fd})
}

// Drop has systemd close what it keeps by a name.
func (s Service) Drop(name string) error { return s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil) }

func closeOnExec(fd int) { unix.CloseOnExec(fd) }

// send sends a message, with descriptors. Package net has no function for that on a connected datagram socket.
func (s Service) send(text string, fds []int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(sendTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err = unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: s.Socket}, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("tell systemd at %s: %w", s.Socket, os.NewSyscallError("sendmsg", err))
	}
	return nil
}
