package wire

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
)

// Conn is one end of the control socket. Send may be called concurrently, Receive by one goroutine.
type Conn struct {
	*net.UnixConn
	sending sync.Mutex
}

// NewConn returns a Conn over a Unix stream socket, which it closes when it is closed.
func NewConn(c *net.UnixConn) *Conn { return &Conn{UnixConn: c} }

// Encode returns the body of a message.
func Encode(m Message) ([]byte, error) { return json.Marshal(m) }

// Send sends a message with copies of the descriptors of files. It waits while the socket's buffer is full: a message
// that was begun and given up would be the end of all that follow. A deadline is for a connection that is of no use
// afterwards.
func (c *Conn) Send(m Message, files ...syscall.Conn) error {
	body, err := Encode(m)
	if err != nil {
		return err
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	return fdmsg.Write(c.UnixConn, body, files...)
}

// Received is a message as it came.
type Received struct {
	Message
	Files []*os.File // the receiver's to close
	Size  int        // of the body, in bytes
	Lost  bool       // descriptors came with it that this process could not receive
}

// Close closes the files. It does not wait for it.
func (r *Received) Close() {
	fdmsg.Drop(r.Files...)
	r.Files = nil
}

// Receive receives the next message.
func (c *Conn) Receive() (Received, error) {
	body, files, err := fdmsg.Read(c.UnixConn)
	r := Received{Files: files, Size: len(body), Lost: errors.Is(err, fdmsg.ErrLost)}
	if err != nil && !r.Lost {
		return r, err
	}
	if r.Message, err = Parse(body); err != nil {
		r.Close()
	}
	return r, err
}

// Gone reports whether receiving failed because the other process is gone.
func Gone(err error) bool { return fdmsg.Ended(err) }

// Interrupted reports whether receiving failed because of a deadline, or because this side closed the connection.
func Interrupted(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)
}

// NoDeadline takes deadlines back.
func (c *Conn) NoDeadline() { c.SetDeadline(time.Time{}) }
