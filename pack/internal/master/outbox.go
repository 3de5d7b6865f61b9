package master

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// maxLetters is how many messages may wait for a worker that reads nothing, beyond what its socket holds.
const maxLetters = 1000

// letter is a message to a worker.
type letter struct {
	msg      wire.Message
	socket   *sockets.Ref // whose descriptor goes along
	board    bool         // the scoreboard's does
	tally    bool         // that of the worker's own does
	from     roster.Ref
	endpoint wire.Endpoint // as the core knows it
	conn     *handedOver   // that does
}

// outbox sends a worker what it is told, in order, in a goroutine that may wait for as long as the worker lives.
type outbox struct {
	master *Master
	ref    roster.Ref
	conn   *wire.Conn

	mu      sync.Mutex
	opened  bool // conn is there
	letters []letter
	sending bool
	stopped bool
	idle    []chan struct{} // closed when there is nothing to send
}

func newOutbox(m *Master, ref roster.Ref) *outbox { return &outbox{master: m, ref: ref} }

// open has letters sent from here on. Those that were put before wait for it.
func (o *outbox) open(conn *wire.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conn, o.opened = conn, true
	o.begin()
}

// begin begins to send if there is something to send. It is called with mu locked.
func (o *outbox) begin() {
	if o.opened && !o.sending && len(o.letters) > 0 {
		o.sending = true
		go o.send()
	}
}

// put has a letter sent. It returns false if none is any more.
func (o *outbox) put(l letter) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return false
	}
	if t := l.msg.Type; t == wire.Ping || t == wire.Reopen {
		same := func(waiting letter) bool { return waiting.msg.Type == t }
		if slices.ContainsFunc(o.letters, same) {
			return true // it asks for nothing more; one that is being traced may read nothing for hours
		}
	}
	if len(o.letters) >= maxLetters {
		o.stopped = true
		o.master.post(broken{o.ref, errors.New("it does not read what the master tells it")})
		return false
	}
	o.letters = append(o.letters, l)
	o.begin()
	return true
}

func (o *outbox) send() {
	for {
		o.mu.Lock()
		if len(o.letters) == 0 {
			o.sending = false
			for _, c := range o.idle {
				close(c)
			}
			o.idle = nil
			o.mu.Unlock()
			return
		}
		l := o.letters[0]
		o.letters = o.letters[1:]
		o.mu.Unlock()
		if err := o.deliver(l); err != nil {
			o.stop()
		}
	}
}

// deliver sends a letter. An error says that the socket is of no use any more.
func (o *outbox) deliver(l letter) error {
	if l.conn != nil {
		err := o.say(9, l.msg, l.conn.file)
		switch {
		case fdmsg.AreTooMany(err):
			o.master.log.put(logLine{slog.LevelWarn, "a connection was lost that a worker handed over", []any{
				"worker", l.from.ID, "error", err,
			}})
		case err != nil:
			o.master.post(undelivered{l.from, l.endpoint, l.conn})
			return err
		}
		l.conn.lose() // this process's copy
		return nil
	}
	var files []syscall.Conn
	switch {
	case l.socket != nil:
		f, err := o.master.sockets.Copy(l.socket.Endpoint, l.socket.Socket)
		if secret := o.master.sockets.Secret(l.socket.Endpoint); secret != nil {
			l.msg.Keys = [][]byte{secret}
		}
		if err != nil && l.msg.Type == wire.Socket {
			return o.conn.Send(wire.Message{Type: wire.Refused, Error: wire.Clip(err.Error())})
		}
		if err != nil {
			return nil // it is closed meanwhile: nobody needs to serve it
		}
		defer func() { go f.Close() }() // which may wait: see fdmsg.Drop
		files = append(files, f)
	case l.tally:
		tally, err := o.master.tallies.open(o.ref)
		if err != nil {
			o.master.log.debug("a worker cannot report what it has to do", "worker", o.ref.ID, "error", err)
			return nil
		}
		defer tally.Close()
		files = append(files, tally)
	case l.board:
		board := o.master.steering.board(o.ref)
		if board == nil {
			return nil
		}
		defer board.Close()
		files = append(files, board)
	}
	err := o.say(12, l.msg, files...)
	if l.tally && err != nil {
		o.master.tallies.forget(o.ref)
	}
	switch {
	case !fdmsg.AreTooMany(err):
		return err
	case l.msg.Type == wire.Socket:
		text := fmt.Sprintf("the master cannot send the socket: %v", err)
		return o.conn.Send(wire.Message{Type: wire.Refused, Error: text})
	}
	return nil // it does as it did
}

// say sends a message. One with descriptors can fail, as a whole, since too many of them are on their way, which says
// nothing about the connection: it is tried again, so often, after a millisecond, and each time after twice as long.
func (o *outbox) say(tries int, m wire.Message, files ...syscall.Conn) error {
	err := o.conn.Send(m, files...)
	for i := 0; i < tries && fdmsg.AreTooMany(err); i++ {
		time.Sleep(time.Millisecond << i)
		err = o.conn.Send(m, files...)
	}
	return err
}

// empty returns a channel that is closed when there is nothing to send.
func (o *outbox) empty() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := make(chan struct{})
	if !o.sending {
		close(c)
	} else {
		o.idle = append(o.idle, c)
	}
	return c
}

// stop has nothing sent any more. Connections that were to be go elsewhere.
func (o *outbox) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	for _, l := range o.letters {
		if l.conn != nil {
			o.master.post(undelivered{l.from, l.endpoint, l.conn})
		}
	}
	o.letters = nil
}

// handedOver is a connection on its way from one worker to another.
type handedOver struct {
	file *os.File
	done chan struct{} // closed when this process has no part in it any more
	once sync.Once
}

// lose closes this process's copy.
func (h *handedOver) lose() {
	h.once.Do(func() {
		fdmsg.Drop(h.file) // whoever serves the connection closes the last copy
		close(h.done)
	})
}
