package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
)

// The predecessor hands over by messages on a Unix stream socket: a version, then each descriptor with its name, the
// state, and the end. The successor says that it is ready. The end of the socket is the end of the other process.

const protocolVersion = 1

type messageType string

const (
	msgHello    messageType = "hello"    // first: Version
	msgItem     messageType = "item"     // Name, Path; its descriptor comes along
	msgAncestor messageType = "ancestor" // a descriptor comes along that ends with an earlier predecessor
	msgState    messageType = "state"    // State
	msgEnd      messageType = "end"      // that was all
	msgReady    messageType = "ready"    // from the successor
)

type message struct {
	Type    messageType `json:"type"`
	Version int         `json:"version,omitempty"`
	Name    *name       `json:"name,omitempty"`
	Path    string      `json:"path,omitempty"`
	State   []byte      `json:"state,omitempty"`
}

// control is one end of the socket.
type control struct {
	conn  *net.UnixConn
	ended chan struct{} // closed when the other process has ended; only in the successor
}

func (c *control) send(m message, files ...syscall.Conn) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return fdmsg.Write(c.conn, body, files...)
}

func (c *control) receive() (m message, files []*os.File, err error) {
	body, files, err := fdmsg.Read(c.conn)
	if err != nil {
		return m, nil, err
	}
	if err := json.Unmarshal(body, &m); err != nil {
		closeAll(files)
		return m, nil, fmt.Errorf("message %.100q: %w", body, err)
	}
	return m, files, nil
}

func (c *control) close() { c.conn.Close() }

// handOver sends everything.
func (u *Upgrader) handOver(c *control) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.handOverLocked(c)
}

func (u *Upgrader) handOverLocked(c *control) error {
	if err := c.send(message{Type: msgHello, Version: protocolVersion}); err != nil {
		return err
	}
	for n, i := range u.items {
		if err := c.send(message{Type: msgItem, Name: &n, Path: i.path}, i.file); err != nil {
			return fmt.Errorf("hand over %s: %w", n, err)
		}
	}
	if u.parent != nil {
		if err := c.send(message{Type: msgAncestor}, u.parent.conn); err != nil {
			return err
		}
	}
	for _, f := range u.ancestors {
		if err := c.send(message{Type: msgAncestor}, f); err != nil {
			return err
		}
	}
	if u.state != nil {
		if err := c.send(message{Type: msgState, State: u.state}); err != nil {
			return err
		}
	}
	return c.send(message{Type: msgEnd})
}

// receiveAll takes over everything.
func (u *Upgrader) receiveAll(c *control) error {
	m, files, err := c.receive()
	closeAll(files)
	if err != nil {
		return err
	}
	if m.Type != msgHello || m.Version != protocolVersion {
		return fmt.Errorf("it speaks version %d of the protocol, this program version %d", m.Version, protocolVersion)
	}
	for {
		m, files, err := c.receive()
		if err != nil {
			return err
		}
		switch {
		case m.Type == msgItem && m.Name != nil && len(files) == 1:
			u.inherited[*m.Name] = &item{file: files[0], path: m.Path}
			files = nil
		case m.Type == msgAncestor && len(files) == 1:
			u.ancestors = append(u.ancestors, files[0])
			files = nil
		case m.Type == msgState:
			u.given, u.state = m.State, m.State
		case m.Type == msgEnd:
			return nil
		case m.Type == msgItem || m.Type == msgAncestor:
			err = errors.New("a descriptor is missing")
		}
		closeAll(files)
		if err != nil {
			return err
		}
	}
}
