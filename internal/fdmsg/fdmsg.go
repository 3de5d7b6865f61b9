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

// Write sends a message with copies of the descriptors of files, which stay open and the caller's. It must not
// be called twice at once. After an error other than one about the arguments the connection is of no use.
func Write(c *net.UnixConn, body []byte, files ...syscall.Conn) error {
	if len(body) > MaxBody || len(files) > MaxFiles {
		return fmt.Errorf("message of %d bytes and %d descriptors: at most %d and %d", len(body), len(files), MaxBody, MaxFiles)
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

// Read receives a message. The files, close-on-exec, are the caller's to close. At the end of the connection
// the error is io.EOF; within a message it is io.ErrUnexpectedEOF.
//
// If a read deadline passes before a message has begun, the error matches os.ErrDeadlineExceeded and nothing was read. If
// one has begun, Read reads on to its end and moves the deadline for that, but not by more than 5 s.
func Read(c *net.UnixConn) (body []byte, files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			body, files = nil, nil
		}
	}()
	header := make([]byte, headerLen)
	if files, err = readFull(c, header, files, false); err != nil {
		return nil, files, err
	}
	n := binary.BigEndian.Uint32(header)
	if n > MaxBody {
		return nil, files, fmt.Errorf("message of %d bytes: at most %d", n, MaxBody)
	}
	body = make([]byte, n)
	files, err = readFull(c, body, files, true)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return body, files, err
}

// patience is how long the rest of a message may take when a deadline has passed.
const patience = 5 * time.Second

// readFull fills buf and adds the descriptors that come along to files. begun says that the message has begun before.
func readFull(c *net.UnixConn, buf []byte, files []*os.File, begun bool) ([]*os.File, error) {
	late := false
	for got := 0; got < len(buf); {
		oob := make([]byte, oobSpace)
		n, oobn, flags, _, err := c.ReadMsgUnix(buf[got:], oob)
		if oobn > 0 {
			fds, perr := parseRights(oob[:oobn])
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "received"))
			}
			if perr != nil {
				return files, perr
			}
		}
		switch {
		case err == nil && truncated(flags), len(files) > MaxFiles:
			return files, fmt.Errorf("more than %d descriptors with one message, or none left for them", MaxFiles)
		case err == nil && n == 0, errors.Is(err, io.EOF):
			if got > 0 {
				return files, io.ErrUnexpectedEOF
			}
			return files, io.EOF
		case errors.Is(err, os.ErrDeadlineExceeded) && (begun || got > 0) && !late:
			late = true
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				return files, err
			}
			continue
		case err != nil:
			return files, err
		}
		got += n
	}
	return files, nil
}
