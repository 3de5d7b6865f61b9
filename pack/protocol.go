package pack

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
)

// protocolVersion is the version of the protocol between master and worker, which PROTOCOL.md describes.
const protocolVersion = 1

// messageType says what a message means.
type messageType string

const (
	// From a worker.
	msgHello    messageType = "hello"    // first: Version
	msgListen   messageType = "listen"   // asks for its socket: Endpoint; the answer is msgSocket or msgRefused
	msgReady    messageType = "ready"    // it accepts on every socket that it asked for
	msgBeat     messageType = "beat"     // it works, and does as Vitals says; again and again while it serves
	msgFailed   messageType = "failed"   // it ends because of Error
	msgLast     messageType = "last"     // when draining: it serves what is queued, and then closes; the answer is msgQuiet
	msgClosed   messageType = "closed"   // when draining: it has closed all its sockets
	msgConn     messageType = "conn"     // hands over an idle connection of Endpoint; a descriptor comes with it
	msgReturned messageType = "returned" // it is done with the socket of Endpoint and Socket that was lent, or cannot serve it because of Error
	msgStayed   messageType = "stayed"   // it hands over no connections any more
	msgEnd      messageType = "end"      // last: it has drained; Cut connections were left and are cut

	// From the master, which also passes msgConn on.
	msgTickets messageType = "tickets" // Keys for TLS session tickets, the newest first; sent after msgHello, and when they change
	msgSocket  messageType = "socket"  // a descriptor comes with it
	msgRefused messageType = "refused" // there is no such socket, because of Error
	msgDrain   messageType = "drain"   // Final: nobody will take over the sockets. HandOver: somebody takes idle connections. Unserved: nobody takes over their sockets
	msgLend    messageType = "lend"    // serve the socket of Endpoint and Socket, of which a descriptor comes along, until nobody connects any more; with Cover until msgTake
	msgBoard   messageType = "board"   // report in Slot of the board, of which a descriptor comes along
	msgReopen  messageType = "reopen"  // open log files anew
	msgStacks  messageType = "stacks"  // write the stack of every goroutine to stderr
	msgTake    messageType = "take"    // give back the socket of Endpoint and Socket that was lent with Cover
	msgStay    messageType = "stay"    // hand over no connections any more; the answer is msgStayed
	msgQuiet   messageType = "quiet"   // no new connections come to its sockets, unless there is an Error
)

// message is one message. Fields that a type does not name are empty, fields and types that a receiver does not
// know are ignored.
type message struct {
	Type     messageType `json:"type"`
	Version  int         `json:"version,omitempty"`
	Endpoint *endpoint   `json:"endpoint,omitempty"`
	Socket   int         `json:"socket,omitempty"`
	Slot     int         `json:"slot,omitempty"`
	Error    string      `json:"error,omitempty"`
	Cover    bool        `json:"cover,omitempty"`
	Final    bool        `json:"final,omitempty"`
	HandOver bool        `json:"handOver,omitempty"`
	Unserved []endpoint  `json:"unserved,omitempty"`
	Cut      int         `json:"cut,omitempty"`
	Keys     [][]byte    `json:"keys,omitempty"`
	Vitals   *vitals     `json:"vitals,omitempty"`
}

// endpoint is an address that a pack serves.
type endpoint struct {
	Network string `json:"network"`
	Address string `json:"address"`
	// Index tells apart endpoints that are written alike, such as two of "localhost:0".
	Index int `json:"index,omitempty"`
}

func (e endpoint) String() string { return e.Network + " " + e.Address }

// name returns what no other endpoint has.
func (e endpoint) name() string { return fmt.Sprintf("%s %s %d", e.Network, e.Address, e.Index) }

// link is one end of the control socket between the master and a worker. send may be called concurrently,
// receive by one goroutine.
type link struct {
	conn    *net.UnixConn
	sending sync.Mutex
}

// sendTimeout is how long the other side may leave the socket's buffer full. Neither waits for one that hangs.
const sendTimeout = time.Second

func (l *link) send(m message, files ...syscall.Conn) error {
	return l.sendWithin(sendTimeout, m, files...)
}

// sendConn hands over a connection. Many may be on their way, so it is patient.
func (l *link) sendConn(e *endpoint, c syscall.Conn) error {
	return l.sendWithin(5*sendTimeout, message{Type: msgConn, Endpoint: e}, c)
}

func (l *link) sendWithin(d time.Duration, m message, files ...syscall.Conn) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	l.sending.Lock()
	defer l.sending.Unlock()
	l.conn.SetWriteDeadline(time.Now().Add(d))
	return fdmsg.Write(l.conn, body, files...)
}

func (l *link) receive() (message, []*os.File, error) {
	body, files, err := fdmsg.Read(l.conn)
	if err != nil {
		return message{}, nil, err
	}
	m, err := parseMessage(body)
	if err != nil {
		closeAll(files)
		return message{}, nil, err
	}
	return m, files, nil
}

func parseMessage(body []byte) (message, error) {
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		return message{}, fmt.Errorf("message %.100q: %w", body, err)
	}
	if m.Type == "" {
		return message{}, fmt.Errorf("message %.100q has no type", body)
	}
	return m, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
