//go:build linux

package load

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/bench/internal/answers"
)

// http1 is a client that speaks HTTP/1.1. It sends always the same bytes, and looks at a head only once.
type http1 struct {
	*group
	tls    *tls.Config
	asks   []byte
	want   []byte // the body; nil: any
	buffer []byte
	conn   net.Conn
	head   int    // length of an answer's head, which is always the same on a connection; 0: not known
	body   int    // length of its body
	pid    string // who answered last, if it says so
}

func newHTTP1(g *group) (*http1, error) {
	connection := "close"
	if g.Keep {
		connection = "keep-alive"
	}
	c := &http1{
		group:  g,
		asks:   fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: bench\r\nConnection: %s\r\n\r\n", g.Path, connection),
		buffer: make([]byte, 64<<10),
	}
	if g.Path != "/pid" {
		want, ok := answers.Body(g.Path)
		if !ok {
			return nil, fmt.Errorf("nobody answers %s", g.Path)
		}
		c.want = want
	}
	if g.Secure {
		c.tls = tlsConfig("http/1.1")
		if g.Resume {
			c.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
	}
	return c, nil
}

// tlsConfig returns that of a client. All servers can do what it wants, so that they compute the same. It does not look
// who the server is: that would be the client's time.
func tlsConfig(protocol string) *tls.Config {
	return &tls.Config{
		ServerName:         "bench",
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS13,
		CurvePreferences:   []tls.CurveID{tls.X25519},
		NextProtos:         []string{protocol},
	}
}

// dialer has an address of each process's own, since the ports of one would not suffice.
func dialer(deadline time.Time) *net.Dialer {
	pid := os.Getpid()
	own := net.IPv4(127, 1+byte(pid>>16), byte(pid>>8), byte(pid))
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: own}, Control: portAtConnect, Deadline: deadline}
}

// portAtConnect has the kernel choose the port when the other end is known, so that connections to others do not count.
func portAtConnect(_, _ string, c syscall.RawConn) (err error) {
	c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) })
	return err
}

func (c *http1) prepare() error { return c.request() }

func (c *http1) run() error {
	if c.conn != nil {
		c.conn.SetDeadline(c.deadline())
	}
	for sent := time.Now(); sent.Before(c.End); {
		if err := c.request(); err != nil {
			c.close()
			if err := c.forgive(sent, err); err != nil {
				return err
			}
			sent = time.Now()
			continue
		}
		sent = c.answered(sent)
	}
	if c.pid != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.HeldBy[c.pid]++
	}
	return nil
}

func (c *http1) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn, c.head = nil, 0
	}
}

// request sends a request and reads the answer.
func (c *http1) request() error {
	if c.conn == nil {
		if err := c.dial(); err != nil {
			return err
		}
	}
	if _, err := c.conn.Write(c.asks); err != nil {
		return err
	}
	switch {
	case !c.Keep:
		defer c.close()
		return c.readAll()
	case c.head == 0:
		return c.learn()
	}
	return c.read()
}

func (c *http1) dial() error {
	deadline := c.deadline()
	conn, err := dialer(deadline).Dial("tcp", c.Address)
	if err != nil {
		return err
	}
	conn.SetDeadline(deadline)
	if c.Keep {
		c.counted(func() { c.Opened++ })
	}
	c.conn = conn
	if c.tls == nil {
		return nil
	}
	secure := tls.Client(conn, c.tls)
	c.conn = secure
	if err := secure.Handshake(); err != nil {
		return err
	}
	resumed := secure.ConnectionState().DidResume
	c.counted(func() {
		c.Handshakes++
		if resumed {
			c.Resumed++
		}
	})
	return nil
}

// learn reads an answer whose lengths are not known yet.
func (c *http1) learn() error {
	var seen bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c.conn, &seen)), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.ContentLength < 0 {
		return errors.New("the answer has no Content-Length")
	}
	c.head, c.body = seen.Len()-len(body), len(body)
	if err := checkStatus(seen.Bytes()); err != nil {
		return err
	}
	return c.check(body)
}

// read reads an answer of which the lengths are known.
func (c *http1) read() error {
	first := c.buffer[:min(c.head+c.body, len(c.buffer))]
	if _, err := io.ReadFull(c.conn, first); err != nil {
		return err
	}
	if err := checkStatus(first); err != nil {
		return err
	}
	got := len(first) - c.head
	if got == c.body {
		return c.check(first[c.head:])
	}
	if !bytes.Equal(first[c.head:], c.want[:got]) {
		return errBody
	}
	for got < c.body {
		n, err := c.conn.Read(c.buffer[:min(c.body-got, len(c.buffer))])
		if err != nil {
			return err
		}
		if !bytes.Equal(c.buffer[:n], c.want[got:got+n]) {
			return errBody
		}
		got += n
	}
	return nil
}

// readAll reads an answer until the server closes.
func (c *http1) readAll() error {
	n := 0
	for {
		more, err := c.conn.Read(c.buffer[n:])
		n += more
		if err == io.EOF {
			break
		}
		if err == nil && n == len(c.buffer) {
			err = io.ErrShortBuffer
		}
		if err != nil {
			return err
		}
	}
	if err := checkStatus(c.buffer[:n]); err != nil {
		return err
	}
	_, body, whole := bytes.Cut(c.buffer[:n], []byte("\r\n\r\n"))
	if !whole {
		return io.ErrUnexpectedEOF
	}
	return c.check(body)
}

var errBody = errors.New("the answer has another body than it should have")

func checkStatus(answer []byte) error {
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %.60q", answer)
	}
	return nil
}

// check looks at a whole body.
func (c *http1) check(body []byte) error {
	if c.want != nil {
		if !bytes.Equal(body, c.want) {
			return errBody
		}
		return nil
	}
	if text := bytes.TrimSpace(body); c.pid != string(text) {
		c.pid = string(text)
	}
	if strings.Trim(c.pid, "0123456789") != "" || c.pid == "" {
		return fmt.Errorf("%.60q is no process", body)
	}
	c.counted(func() { c.ByPID[c.pid]++ })
	return nil
}

// slow is a client that reads a megabyte slowly.
type slow struct {
	*group
	conn net.Conn
}

func newSlow(g *group) *slow { return &slow{group: g} }

// At this rate it reads: 100 KB/s, by the interval of ten steps a second.
const (
	slowStep     = 10 << 10
	slowInterval = 100 * time.Millisecond
)

func (c *slow) prepare() error {
	d := dialer(time.Now().Add(patience))
	// A large buffer would take all at once.
	d.Control = func(network, address string, raw syscall.RawConn) (err error) {
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10) })
		return errors.Join(err, portAtConnect(network, address, raw))
	}
	conn, err := d.Dial("tcp", c.Address)
	c.conn = conn
	return err
}

func (c *slow) run() error {
	c.conn.SetDeadline(c.deadline())
	buffer := make([]byte, slowStep)
	for time.Now().Before(c.End) {
		if _, err := io.WriteString(c.conn, "GET /1m HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
			return err
		}
		left := -1 // of the body; not known before the head is there
		for first := true; left != 0 && time.Now().Before(c.End); first = false {
			n, err := io.ReadFull(c.conn, buffer[:stepOf(left)])
			if err != nil {
				return err
			}
			if first {
				if err := checkStatus(buffer[:n]); err != nil {
					return err
				}
				_, body, whole := bytes.Cut(buffer[:n], []byte("\r\n\r\n"))
				if !whole {
					return io.ErrUnexpectedEOF
				}
				left, n = len(answers.Megabyte()), len(body)
			}
			left -= n
			time.Sleep(slowInterval)
		}
	}
	return nil
}

func stepOf(left int) int {
	if left < 0 {
		return slowStep
	}
	return min(left, slowStep)
}

func (c *slow) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}
