// Package fdmsg sends messages, and descriptors along with them, over a Unix stream socket.
//
// A message is a length of four bytes, big-endian, then that many bytes; its descriptors travel with the first
// byte, by SCM_RIGHTS (unix(7)).
package fdmsg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	MaxBody  = 64 << 10 // bytes in a message, at most
	MaxFiles = 64       // descriptors with one message, at most; the kernel's own limit is 253
)

const headerLen = 4

// ErrLost is the error of Read for a message whose descriptors did not all arrive, since this process has none left
// (ulimit -n) or there were more than MaxFiles. The message is whole, and the connection is of use: only the
// descriptors are gone.
var ErrLost = errors.New("descriptors that came with a message were lost (is the limit of open files reached?)")

// AreTooMany reports whether a message was not sent, nothing of it, since there are too many descriptors on their way
// between the processes of this user (unix(7), ETOOMANYREFS). That passes.
func AreTooMany(err error) bool { return areTooMany(err) }

// Write sends a message with copies of the descriptors of files, which stay open and the caller's. It must not
// be called twice at once. After an error other than one about the arguments the connection is of no use.
func Write(c *net.UnixConn, body []byte, files ...syscall.Conn) error {
	if len(body) > MaxBody || len(files) > MaxFiles {
		return fmt.Errorf("message of %d bytes and %d descriptors: at most %d and %d",
			len(body), len(files), MaxBody, MaxFiles)
	}
	message := append(binary.BigEndian.AppendUint32(make([]byte, 0, headerLen+len(body)), uint32(len(body))), body...)
	return withDescriptors(nil, files, func(fds []int) error {
		var oob []byte
		if len(fds) > 0 {
			oob = rights(fds)
		}
		n, _, err := c.WriteMsgUnix(message, oob, nil)
		if err == nil && n < len(message) {
			_, err = c.Write(message[n:])
		}
		return err
	})
}

// withDescriptors calls f while all files are kept open.
func withDescriptors(fds []int, files []syscall.Conn, f func(fds []int) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	rc, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = withDescriptors(append(fds, int(fd)), files[1:], f) }); err != nil {
		return err
	}
	return ferr
}

// Read receives a message. The files, close-on-exec, are the caller's to close. At the end of the connection the error
// is io.EOF; within a message it is io.ErrUnexpectedEOF. With the error [ErrLost] there is a body, and no files.
//
// If a read deadline passes before a message has begun, the error matches os.ErrDeadlineExceeded and nothing was read.
// If one has begun, Read reads on to its end and moves the deadline for that, but not by more than 1 s.
func Read(c *net.UnixConn) (body []byte, files []*os.File, err error) {
	r := reading{conn: c}
	defer func() {
		if err == nil && r.lost {
			err = ErrLost
		} else if err != nil {
			body = nil
		}
		if err != nil {
			Drop(r.files...)
			files = nil
		}
	}()
	header := make([]byte, headerLen)
	if err = r.full(header, false); err != nil {
		return nil, nil, err
	}
	n := binary.BigEndian.Uint32(header)
	if n > MaxBody {
		return nil, nil, fmt.Errorf("message of %d bytes: at most %d", n, MaxBody)
	}
	body = make([]byte, n)
	err = r.full(body, true)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return body, r.files, err
}

// reading is a message that is being received.
type reading struct {
	conn  *net.UnixConn
	files []*os.File
	lost  bool // some files did not arrive
	late  bool // the deadline was moved
	oob   []byte
}

// patience is how long the rest of a message may take when a deadline has passed.
const patience = time.Second

// full fills buf and takes the descriptors that come along. begun says that the message has begun before.
func (r *reading) full(buf []byte, begun bool) error {
	if r.oob == nil {
		r.oob = make([]byte, oobSpace)
	}
	for got := 0; got < len(buf); {
		n, oobn, flags, _, err := r.conn.ReadMsgUnix(buf[got:], r.oob)
		if oobn > 0 {
			fds, perr := parseRights(r.oob[:oobn])
			for _, fd := range fds {
				f := os.NewFile(uintptr(fd), "received")
				if len(r.files) == MaxFiles { // whoever sends more fills nobody's table
					r.lost = true
					Drop(f)
					continue
				}
				r.files = append(r.files, f)
			}
			if perr != nil {
				return perr
			}
		}
		r.lost = r.lost || truncated(flags)
		switch {
		case err == nil && n == 0, errors.Is(err, io.EOF):
			if got > 0 {
				return io.ErrUnexpectedEOF
			}
			return io.EOF
		case errors.Is(err, os.ErrDeadlineExceeded) && (begun || got > 0) && !r.late:
			r.late = true
			if err := r.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		got += n
	}
	return nil
}

// Discard reads whatever comes, and drops descriptors that come along, until the end of the connection.
func Discard(c *net.UnixConn) {
	for {
		r := reading{conn: c}
		err := r.full(make([]byte, 4096), false)
		Drop(r.files...)
		if err != nil {
			return
		}
	}
}

// Drop closes files that came from somebody who may mean ill, and does not wait: close(2) of the last copy of a
// connection with SO_LINGER waits for a peer that does not read.
func Drop(files ...*os.File) {
	for _, f := range files {
		DontLinger(f)
		go f.Close() // whoever has another copy may set the option again
	}
}

// DontLinger has the close of the last copy of a socket not wait (SO_LINGER, socket(7)).
func DontLinger(c syscall.Conn) { dontLinger(c) }

// Ended reports whether an error of Read says that the other end is gone. Others say that something is wrong with this
// one, or with what was sent.
func Ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err)
}
