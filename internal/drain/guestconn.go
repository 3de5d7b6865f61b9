package drain

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// guestConn has what every connection has.
type guestConn struct {
	net.Conn
	g *guest
}

func (c *guestConn) Read(b []byte) (int, error)        { return c.g.read(b) }
func (c *guestConn) Write(b []byte) (int, error)       { return c.g.writeBytes(b) }
func (c *guestConn) Close() error                      { return c.g.close() }
func (c *guestConn) SetDeadline(t time.Time) error     { return c.g.setDeadline(t) }
func (c *guestConn) SetReadDeadline(t time.Time) error { return c.g.setReadDeadline(t) }

// guestSocket has what TCP and Unix sockets have besides. It does not embed these: net.Buffers would be written past
// it.
type guestSocket struct {
	guestConn
	socketOptions
}

type socketOptions interface {
	CloseRead() error
	CloseWrite() error
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

// File returns a copy of the socket, by which others can read and write unseen.
func (c *guestSocket) File() (*os.File, error) {
	c.g.lose()
	return c.Conn.(interface{ File() (*os.File, error) }).File()
}

func (c *guestSocket) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	return guestRaw{raw, c.g}, err
}

// guestRaw gives up following a connection that is read or written unseen.
type guestRaw struct {
	syscall.RawConn
	g *guest
}

func (c guestRaw) Read(f func(fd uintptr) (done bool)) error {
	c.g.lose()
	return c.RawConn.Read(f)
}

func (c guestRaw) Write(f func(fd uintptr) (done bool)) error {
	c.g.lose()
	return c.RawConn.Write(f)
}

type guestTCP struct {
	guestSocket
	tcpOptions
}

type tcpOptions interface {
	SetKeepAlive(bool) error
	SetKeepAliveConfig(net.KeepAliveConfig) error
	SetKeepAlivePeriod(time.Duration) error
	SetLinger(seconds int) error
	SetNoDelay(bool) error
}

// ReadFrom keeps sendfile(2) and splice(2).
func (c *guestTCP) ReadFrom(r io.Reader) (int64, error) {
	return c.g.readFrom(func() (int64, error) { return c.Conn.(io.ReaderFrom).ReadFrom(r) })
}

// conn returns the guest for the server, with the methods that its socket has.
func (g *guest) conn() net.Conn {
	c := guestConn{g.socket, g}
	switch socket := g.socket.(type) {
	case *net.TCPConn:
		return &guestTCP{guestSocket{c, socket}, socket}
	case *net.UnixConn:
		return &guestSocket{c, socket}
	}
	return &c
}
