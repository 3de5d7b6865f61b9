//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// warmUp is how long clients load a server before what they do counts.
const warmUp = 300 * time.Millisecond

type loadConfig struct {
	address, path string
	clients       int
	keepAlive     bool
	duration      time.Duration
}

// loaded is what the clients of one process tell.
type loaded struct {
	Sent     int // requests in all, warm-up included
	Counted  int // those that were answered while it counts
	Duration time.Duration
	Took     *hdrhistogram.Snapshot // by those, in microseconds
}

// runLoad writes what so many clients were given to stdout. They do little for themselves, and retry nothing: any
// failure ends the comparison.
func runLoad(c loadConfig) error {
	begin := time.Now().Add(warmUp)
	end := begin.Add(c.duration)
	took := newHistogram()
	result := loaded{Duration: c.duration}
	var mu sync.Mutex
	var failed error
	var clients sync.WaitGroup
	for range c.clients {
		clients.Go(func() {
			own, sent, counted := newHistogram(), 0, 0
			client := newClient(c)
			defer client.close()
			var err error
			for now := time.Now(); err == nil && now.Before(end); {
				err = client.request()
				answered := time.Now()
				sent++
				if !now.Before(begin) && answered.Before(end) {
					own.RecordValue(answered.Sub(now).Microseconds())
					counted++
				}
				now = answered
			}
			mu.Lock()
			defer mu.Unlock()
			took.Merge(own)
			result.Sent += sent
			result.Counted += counted
			if err != nil {
				failed = err
			}
		})
	}
	clients.Wait()
	if failed != nil {
		return failed
	}
	result.Took = took.Export()
	return json.NewEncoder(os.Stdout).Encode(result)
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 2)
}

// client is one client. It has one request under way at a time.
type client struct {
	loadConfig
	dialer net.Dialer
	asks   []byte
	conn   net.Conn
	buffer []byte
	length int // of an answer, header included, which is always the same on a connection that is kept
}

func newClient(c loadConfig) *client {
	connection := "close"
	if c.keepAlive {
		connection = "keep-alive"
	}
	// Each process has an address of its own, since the ports of one would not suffice.
	pid := os.Getpid()
	own := net.IPv4(127, 1+byte(pid>>16), byte(pid>>8), byte(pid))
	return &client{
		loadConfig: c,
		dialer:     net.Dialer{LocalAddr: &net.TCPAddr{IP: own}, Control: portAtConnect, Timeout: 10 * time.Second},
		asks:       fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n\r\n", c.path, c.address, connection),
		buffer:     make([]byte, 64<<10),
	}
}

// portAtConnect has the kernel choose the port when the other end is known, so that connections to others do not count.
func portAtConnect(_, _ string, c syscall.RawConn) (err error) {
	c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) })
	return err
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *client) request() (err error) {
	if c.conn == nil {
		if c.conn, err = c.dialer.Dial("tcp", c.address); err != nil {
			return err
		}
	}
	if _, err := c.conn.Write(c.asks); err != nil {
		return err
	}
	if !c.keepAlive {
		defer c.close()
		n, err := readAll(c.conn, c.buffer)
		if err != nil {
			return err
		}
		return c.check(c.buffer[:n])
	}
	if c.length == 0 {
		return c.learn()
	}
	if _, err := io.ReadFull(c.conn, c.buffer[:c.length]); err != nil {
		return err
	}
	return c.check(c.buffer[:c.length])
}

// learn reads an answer whose length is not known yet.
func (c *client) learn() error {
	var seen bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c.conn, &seen)), nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	c.length = seen.Len()
	return c.check(seen.Bytes())
}

func (c *client) check(answer []byte) error {
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %.60q", answer)
	}
	return nil
}

// readAll reads until the other side closes.
func readAll(conn net.Conn, into []byte) (n int, err error) {
	for n < len(into) {
		more, err := conn.Read(into[n:])
		n += more
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, io.ErrShortBuffer
}
