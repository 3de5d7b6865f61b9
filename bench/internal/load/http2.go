//go:build linux

package load

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/gopherpack/gopherpack/bench/internal/answers"
)

// http2Client is a client that speaks HTTP/2 over TLS, with several requests under way on its connection.
type http2Client struct {
	*group
	conn   *tls.Conn
	framer *http2.Framer
	asks   []byte // the fields of a request; they leave nothing in the server's table
	want   []byte
	next   uint32 // stream
	open   map[uint32]*stream
}

// stream is a request under way.
type stream struct {
	sent time.Time
	ok   bool // it has a status of 200
	got  int  // bytes of its body
}

func newHTTP2(g *group) (*http2Client, error) {
	want, ok := answers.Body(g.Path)
	if !ok {
		return nil, fmt.Errorf("nobody answers %s", g.Path)
	}
	var asks bytes.Buffer
	e := hpack.NewEncoder(&asks)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: "bench", Sensitive: true}, {Name: ":path", Value: g.Path, Sensitive: true},
	} {
		if err := e.WriteField(f); err != nil {
			return nil, err
		}
	}
	return &http2Client{group: g, asks: asks.Bytes(), want: want, next: 1, open: map[uint32]*stream{}}, nil
}

// prepare connects and is answered once.
func (c *http2Client) prepare() error {
	conn, err := dialer(c.deadline()).Dial("tcp", c.Address)
	if err != nil {
		return err
	}
	conn.SetDeadline(c.deadline())
	c.conn = tls.Client(conn, tlsConfig("h2"))
	if err := c.conn.Handshake(); err != nil {
		return err
	}
	if p := c.conn.ConnectionState().NegotiatedProtocol; p != "h2" {
		return fmt.Errorf("the server speaks %q, not h2", p)
	}
	c.framer = http2.NewFramer(c.conn, c.conn)
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(c.conn, http2.ClientPreface); err != nil {
		return err
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return err
	}
	if err := c.framer.WriteWindowUpdate(0, 1<<30); err != nil { // more than is read in a measurement
		return err
	}
	if err := c.ask(); err != nil {
		return err
	}
	for len(c.open) > 0 {
		if _, err := c.read(); err != nil {
			return err
		}
	}
	return nil
}

func (c *http2Client) run() error {
	c.conn.SetDeadline(c.deadline())
	for range c.Streams {
		if err := c.ask(); err != nil {
			return err
		}
	}
	for len(c.open) > 0 {
		ended, err := c.read()
		if err != nil {
			return err
		}
		if ended == nil {
			continue
		}
		if c.answered(ended.sent).Before(c.End) {
			if err := c.ask(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *http2Client) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// ask sends a request.
func (c *http2Client) ask() error {
	c.open[c.next] = &stream{sent: time.Now()}
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: c.next, BlockFragment: c.asks, EndStream: true, EndHeaders: true,
	})
	c.next += 2
	return err
}

// read reads a frame, and returns the request that has been answered by it, if one has.
func (c *http2Client) read() (*stream, error) {
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return nil, err
	}
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		s := c.open[f.StreamID]
		if s == nil || f.PseudoValue("status") != "200" {
			return nil, fmt.Errorf("stream %d is answered by %v", f.StreamID, f.Fields)
		}
		s.ok = true
		return c.ended(f.StreamID, f.StreamEnded())
	case *http2.DataFrame:
		s, data := c.open[f.StreamID], f.Data()
		if s == nil || !s.ok || s.got+len(data) > len(c.want) || !bytes.Equal(data, c.want[s.got:s.got+len(data)]) {
			return nil, errBody
		}
		s.got += len(data)
		return c.ended(f.StreamID, f.StreamEnded())
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return nil, c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return nil, c.framer.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame, *http2.RSTStreamFrame:
		return nil, fmt.Errorf("the server says %v", f)
	}
	return nil, nil
}

// ended looks whether a stream has ended, with all that it should have.
func (c *http2Client) ended(id uint32, end bool) (*stream, error) {
	if !end {
		return nil, nil
	}
	s := c.open[id]
	delete(c.open, id)
	if s.got != len(c.want) {
		return nil, errBody
	}
	return s, nil
}
