package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
)

// A predecessor hands over to a new process by messages on a Unix stream socket: a version, then each descriptor with
// its name, the state in pieces, and the end. The successor says that it is ready, and goes on when the predecessor has
// said that it is replaced: so both know which of them serves. The end of the socket is the end of the other process.

const protocolVersion = 2

type messageType string

const (
	msgHello    messageType = "hello"    // first: Version
	msgItem     messageType = "item"     // Name, Path, File; its descriptor comes along
	msgAncestor messageType = "ancestor" // a descriptor comes along that ends with an earlier predecessor
	msgState    messageType = "state"    // State, the next piece of it
	msgEnd      messageType = "end"      // that was all
	msgReady    messageType = "ready"    // from the successor
	msgFailed   messageType = "failed"   // from the successor: Error; it will end
	msgReplaced messageType = "replaced" // the predecessor stops serving
)

// pieceOfState is how much of the state a message has, less than fdmsg.MaxBody when it is encoded.
const pieceOfState = 32 << 10

type message struct {
	Type    messageType `json:"type"`
	Version int         `json:"version,omitempty"`
	Name    *name       `json:"name,omitempty"`
	Path    string      `json:"path,omitempty"`
	File    fileID      `json:"file,omitzero"` // of Path
	State   []byte      `json:"state,omitempty"`
	Error   string      `json:"error,omitempty"`
}

// control is one end of the socket.
type control struct {
	conn     *net.UnixConn
	replaced chan struct{} // in the successor: closed when the predecessor has said so
	ended    chan struct{} // in the successor: closed when the predecessor has ended
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
		closeAll(files)
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
func (c *control) handOver(all *holdings) error {
	if err := c.send(message{Type: msgHello, Version: protocolVersion}); err != nil {
		return err
	}
	for _, n := range all.names() {
		i := all.items[n]
		if err := c.send(message{Type: msgItem, Name: &n, Path: i.path, File: i.id}, i.file); err != nil {
			return fmt.Errorf("hand over %s: %w", n, err)
		}
	}
	for _, a := range all.ancestors {
		if err := c.send(message{Type: msgAncestor}, a); err != nil {
			return err
		}
	}
	for rest, first := all.state, true; len(rest) > 0 || first && rest != nil; first = false {
		n := min(len(rest), pieceOfState)
		if err := c.send(message{Type: msgState, State: rest[:n]}); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return c.send(message{Type: msgEnd})
}

// patience is how long the predecessor may take to send the next message: it writes without waiting.
const patience = 10 * time.Second

// takeOver receives everything.
func (c *control) takeOver() (all *holdings, err error) {
	all = &holdings{items: map[name]*item{}}
	defer func() {
		if err != nil {
			all.close()
		}
	}()
	for expected := msgHello; ; expected = "" {
		c.conn.SetReadDeadline(time.Now().Add(patience))
		m, files, err := c.receive()
		if err != nil {
			return all, err
		}
		switch {
		case expected == msgHello && (m.Type != msgHello || m.Version != protocolVersion):
			err = otherVersion(m.Version)
		case m.Type == msgItem && m.Name != nil && all.items[*m.Name] != nil:
			err = fmt.Errorf("%s has come before", *m.Name)
		case m.Type == msgItem && m.Name != nil && len(files) == 1:
			all.items[*m.Name] = &item{file: files[0], path: m.Path, id: m.File, inherited: true}
			files = nil
		case m.Type == msgAncestor && len(files) == 1:
			all.ancestors = append(all.ancestors, files[0])
			files = nil
		case m.Type == msgState:
			if all.state == nil {
				all.state = []byte{} // an empty one is one, too
			}
			all.state = append(all.state, m.State...)
		case m.Type == msgEnd:
			return all, c.conn.SetReadDeadline(time.Time{})
		case m.Type == msgItem || m.Type == msgAncestor:
			err = errors.New("a descriptor is missing")
		}
		closeAll(files)
		if err != nil {
			return all, err
		}
	}
}

// failedError is why a program cannot be the successor, as it says.
type failedError string

func (f failedError) Error() string { return "it says: " + string(f) }

func otherVersion(v int) error {
	return fmt.Errorf("it speaks version %d of the protocol, this program version %d", v, protocolVersion)
}
