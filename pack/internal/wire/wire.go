// Package wire is the language in which the master and its workers speak over the control socket: the messages, their
// framing, and which of them a worker may send, when, how large and with how many descriptors. PROTOCOL.md describes
// it.
//
// A worker may run as another user, and may have been taken over by an attacker. So the master believes nothing that it
// says beyond what this package lets through: see [Message.CheckFromWorker], [MaySend] and [Meter].
package wire

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Version is the version of the protocol.
const Version = 2

// Type says what a message means.
type Type string

// What a worker says.
const (
	Hello         Type = "hello"         // first: Version
	Listen        Type = "listen"        // asks for its socket of Endpoint; the answer is Socket or Refused
	Ready         Type = "ready"         // it accepts on every socket that it asked for
	Beat          Type = "beat"          // it works, and does as Vitals says; again and again, and when it is pinged
	Failed        Type = "failed"        // it ends because of Error
	Stopping      Type = "stopping"      // it got a signal to stop; the answer is Drain. Until then it accepts
	Quiesce       Type = "quiesce"       // when draining: it serves what is queued, then closes; the answer is Quiesced
	Closed        Type = "closed"        // when draining: it has closed all its sockets
	Handover      Type = "handover"      // hands over an idle connection of Endpoint; a descriptor comes with it
	HandoverEnded Type = "handoverEnded" // the answer to EndHandover: no connection is on its way any more
	Covered       Type = "covered"       // it cannot serve Socket of Endpoint, as Cover or DrainSocket asked: Error
	Drained       Type = "drained"       // the answer to DrainSocket: nothing comes to Socket of Endpoint any more
	End           Type = "end"           // last: it has drained; Cut connections were left and are cut
)

// What the master says. It also passes Handover on.
const (
	Tickets     Type = "tickets"     // Keys for TLS session tickets, the newest first; after Hello, and when they change
	Socket      Type = "socket"      // a descriptor comes with it
	Refused     Type = "refused"     // there is no such socket, because of Error
	Drain       Type = "drain"       // stop accepting, finish, end; see Message
	Quiesced    Type = "quiesced"    // no new connections come to its sockets, unless there is an Error
	EndHandover Type = "endHandover" // hand over no connections any more; the answer is HandoverEnded
	Cover       Type = "cover"       // serve Socket of Endpoint, too, of which a descriptor comes along, until Uncover
	Uncover     Type = "uncover"     // serve it no more: its worker is back
	DrainSocket Type = "drainSocket" // serve Socket of Endpoint, whose descriptor comes along, until nobody connects
	Board       Type = "board"       // report in Slot of the scoreboard, of which a descriptor comes along
	Tally       Type = "tally"       // report, to the master alone, in the slot of which a descriptor comes along
	Shed        Type = "shed"        // hand over Conns idle connections that are kept alive, now or when they are idle
	Ping        Type = "ping"        // say Beat now
	Reopen      Type = "reopen"      // open log files anew
	Stacks      Type = "stacks"      // write the stack of every goroutine to stderr
)

// Message is one message. Fields that a type does not name are empty.
type Message struct {
	Type     Type       `json:"type"`
	Version  int        `json:"version,omitempty"`
	Endpoint *Endpoint  `json:"endpoint,omitempty"`
	Defer    bool       `json:"defer,omitempty"` // Listen: clients of Endpoint speak first
	Socket   int        `json:"socket,omitempty"`
	Slot     int        `json:"slot,omitempty"`
	Error    string     `json:"error,omitempty"`
	Kept     bool       `json:"kept,omitempty"`     // Socket: it goes on when the master is gone
	Given    bool       `json:"given,omitempty"`    // Socket: it goes on when the pack ends
	Final    bool       `json:"final,omitempty"`    // Drain: nobody takes over its sockets
	HandOver bool       `json:"handOver,omitempty"` // Drain: somebody takes idle connections
	Unserved []Endpoint `json:"unserved,omitempty"` // Drain: nobody takes over these
	Cut      int        `json:"cut,omitempty"`
	Conns    int        `json:"conns,omitempty"`
	Keys     [][]byte   `json:"keys,omitempty"` // Tickets; Socket of QUIC: the one secret, and Slot is the member
	Vitals   *Vitals    `json:"vitals,omitempty"`
}

// Endpoint is an address that a pack serves.
type Endpoint struct {
	Network string `json:"network"`
	Address string `json:"address"`
	// Index tells apart endpoints that are written alike, such as two of "localhost:0".
	Index int `json:"index,omitempty"`
	// Own is set if each worker has an address of its own: the port is that of Address and the worker's ID, or any.
	Own bool `json:"own,omitempty"`
	// QUIC is set if packets are of QUIC: each worker process has a socket of its own, to which those of its connections
	// come, until it has ended.
	QUIC bool `json:"quic,omitempty"`
}

// IsPacket reports whether datagrams come there, not connections.
func (e Endpoint) IsPacket() bool { return strings.HasPrefix(e.Network, "udp") }

func (e Endpoint) String() string { return e.Network + " " + e.Address }

// Name returns what no other endpoint has.
func (e Endpoint) Name() string {
	name := fmt.Sprintf("%s %s %d", e.Network, e.Address, e.Index)
	if e.Own {
		name += " own"
	}
	if e.QUIC {
		name += " quic"
	}
	return name
}

// Vitals is how a worker does, by itself.
type Vitals struct {
	Served   uint64 `json:"served,omitempty"`   // requests, of servers that tell of them, and connections of others
	Accepted uint64 `json:"accepted,omitempty"` // connections, from sockets
	Conns    int    `json:"conns,omitempty"`    // open connections
	Probe    string `json:"probe,omitempty"`    // why Config.Probe fails
}

// Parse reads a message.
func Parse(body []byte) (Message, error) {
	var m Message
	if err := json.Unmarshal(body, &m); err != nil {
		return Message{}, fmt.Errorf("message %.100q: %w", body, err)
	}
	if m.Type == "" {
		return Message{}, fmt.Errorf("message %.100q has no type", body)
	}
	return m, nil
}

// MaxText is how long a text may be that a worker sends, in bytes.
const MaxText = 4 << 10

// Clip makes a text one that can be sent: of MaxText bytes at most, all of them UTF-8, since JSON has no other.
func Clip(text string) string {
	const more = "…"
	if len(text) > 2*MaxText {
		text = text[:2*MaxText]
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= MaxText {
		return text
	}
	cut := MaxText - len(more)
	for cut > 0 && text[cut]&0xC0 == 0x80 { // within a rune
		cut--
	}
	return text[:cut] + more
}
