// Package sockets keeps the listening sockets of a pack: it opens them in the master, which never accepts from them,
// and from where each worker gets its own.
package sockets

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

// Files says how the files of Unix sockets are made.
type Files struct {
	Mode  fs.FileMode // the permissions, whatever the umask
	Owner *Owner      // nil: whoever makes them
}

// Owner is whose a file is.
type Owner struct{ UID, GID int }

// Keeper holds the listening sockets of a pack. All methods are safe for concurrent use, and none but Open waits for
// anything but a system call.
type Keeper struct {
	// Control, if it is not nil, is called with each socket before it is bound, as [net.ListenConfig.Control] is.
	// Waits is told, once in an Open, for which processes it waits: see Open. Both are set before the first Open.
	Control func(network, address string, c syscall.RawConn) error
	Waits   func(e wire.Endpoint, pids []int)

	files Files

	mu      sync.Mutex
	open    map[wire.Endpoint]*set
	opening map[wire.Endpoint]*opening
	closed  bool
	polled  pollSet
	passed  []*passed
	leaving []*set // of QUIC, after Close
}

// set is the sockets of one endpoint.
type set struct {
	listeners []socket // one per worker, or one for all if it is shared
	shared    bool
	own       bool            // each worker's has another address
	file      *file           // of a Unix socket in the file system; nil for others
	final     map[socket]bool // to these new connections are kept out for good
	beside    []wire.Endpoint // it listens on some of what these do
	deferred  bool            // connections are let in when their clients have spoken; see Defer
	given     string          // the name of the first, if that is of a socket unit of systemd
	kept      int             // so many of them systemd had kept
	alone     error           // why there are no more of them
	seed      uint32          // of the choice by flow, if they are packet sockets
	secret    []byte          // of QUIC; nil if it is not. The sockets are by place then, see quic.go
}

// socket is a listening socket, or a packet socket, of this process, which does not accept or read from it.
type socket interface {
	syscall.Conn
	Addr() net.Addr
	File() (*os.File, error) // returns a copy
	Close() error
}

// isUnix reports whether it is a Unix socket.
func isUnix(s socket) bool {
	_, is := s.Addr().(*net.UnixAddr)
	return is
}

// isPacket reports whether it is a packet socket.
func isPacket(s socket) bool {
	_, is := s.Addr().(*net.UDPAddr)
	return is
}

// packetConn is a packet socket, to be kept.
type packetConn struct{ *net.UDPConn }

func (p packetConn) Addr() net.Addr { return p.LocalAddr() }

// opened returns what package net has opened as something to keep.
func opened(s any) socket {
	if u, ok := s.(*net.UDPConn); ok {
		return packetConn{u}
	}
	return s.(socket)
}

// keepAll takes over sockets that package net has opened, all or none.
func keepAll[S any](sockets ...S) (all []socket, err error) {
	for _, l := range sockets {
		s, kerr := keep(opened(l))
		if err = errors.Join(err, kerr); kerr == nil {
			all = append(all, s)
		}
	}
	if err != nil {
		for _, s := range all {
			s.Close()
		}
		return nil, err
	}
	return all, nil
}

// New returns a keeper without sockets.
func New(f Files) *Keeper {
	return &Keeper{files: f, open: map[wire.Endpoint]*set{}, opening: map[wire.Endpoint]*opening{}}
}

// Info describes the sockets of an endpoint.
type Info struct {
	Endpoint wire.Endpoint
	Sockets  int    // one per worker, or 1
	Shared   bool   // one socket for all: Unix sockets, and all where the system spreads no connections
	Address  string // what is listened on, with the port that the kernel chose; by each worker if they differ
	Given    string // the name of the first, or of the one for all, if systemd has passed it
	Kept     int    // so many systemd had kept
	Alone    error  // why there are no more of them, for all workers
}

// Beside returns the endpoints beside whose sockets those of an endpoint were opened, since they listen on some of it.
func (k *Keeper) Beside(e wire.Endpoint) []wire.Endpoint {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.open[e]; s != nil {
		return s.beside
	}
	return nil
}

func (s *set) info(e wire.Endpoint) Info {
	return Info{
		Endpoint: e, Sockets: len(s.listeners), Shared: s.shared, Address: s.address(),
		Given: s.given, Alone: s.alone, Kept: s.kept,
	}
}

// address returns where the sockets listen. The file of a Unix socket is named as the user did, not as it was bound.
func (s *set) address() string {
	if s.file != nil {
		return s.file.path
	}
	if s.own {
		var all []string
		for _, l := range s.listeners {
			all = append(all, l.Addr().String())
		}
		return strings.Join(all, ", ")
	}
	return s.listeners[0].Addr().String()
}

// Infos returns what is open, sorted.
func (k *Keeper) Infos() []Info {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Info
	for _, e := range k.endpoints() {
		all = append(all, k.open[e].info(e))
	}
	return all
}

// endpoints returns the endpoints that are open, sorted. It is called with mu locked.
func (k *Keeper) endpoints() []wire.Endpoint {
	return slices.SortedFunc(maps.Keys(k.open), func(a, b wire.Endpoint) int {
		return cmp.Or(
			cmp.Compare(a.Network, b.Network), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Index, b.Index))
	})
}

// Copy returns a copy of worker i's socket of an endpoint, to be sent to a worker: of its own, or of the one that all
// share. Workers beyond the number of sockets share those that there are. The caller closes it. Sending it may have to
// wait for the worker, and to close a descriptor waits while it is in use: that must not hold up the keeper.
//
// If new connections are kept out of the socket, by [Keeper.QuiesceEndpoint] or by a worker, that is undone first, so
// that no worker waits at a socket to which nothing comes. After [Keeper.QuiesceFinal] it is not: then somebody may
// still serve the queue.
func (k *Keeper) Copy(e wire.Endpoint, i int) (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l, err := k.listener(e, i)
	if err != nil {
		return nil, err
	}
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("%s: copy the socket: %w", e, err)
	}
	return f, nil
}

// Socket is [Keeper.Copy] for a process that serves the socket by itself. It returns a [net.Listener], or a
// [net.PacketConn], which the caller closes.
func (k *Keeper) Socket(e wire.Endpoint, i int) (io.Closer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, err := k.listener(e, i)
	if err != nil {
		return nil, err
	}
	return served(s)
}

// listener returns worker i's socket, to which new connections come. It is called with mu locked.
func (k *Keeper) listener(e wire.Endpoint, i int) (socket, error) {
	s, err := k.find(e)
	if err != nil {
		return nil, err
	}
	if i < 0 {
		return nil, fmt.Errorf("%s: there is no worker %d", e, i)
	}
	if err := k.openPlace(e, s, i); err != nil {
		return nil, err
	}
	l := s.listeners[i%len(s.listeners)]
	if !s.final[l] {
		if err := s.resume(l); err != nil {
			return nil, fmt.Errorf("%s: let new connections in again: %w", e, err)
		}
	}
	return l, nil
}

// find returns the sockets of an endpoint. It is called with mu locked.
func (k *Keeper) find(e wire.Endpoint) (*set, error) {
	switch s := k.open[e]; {
	case k.closed:
		return nil, stopping(e)
	case s == nil:
		return nil, fmt.Errorf("%s: there are no sockets", e)
	default:
		return s, nil
	}
}

func stopping(e wire.Endpoint) error { return fmt.Errorf("listen %s: the pack is stopping", e) }

// Listeners returns the listening sockets of the first n workers, to be steered; nil if there are fewer, or workers share
// one, or have addresses of their own.
func (k *Keeper) Listeners(e wire.Endpoint, n int) []syscall.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.open[e]
	if s == nil || s.shared || s.own || e.IsPacket() || n > len(s.listeners) {
		return nil
	}
	var all []syscall.Conn
	for _, l := range s.listeners[:max(n, 0)] {
		all = append(all, l)
	}
	return all
}

// Keep closes the sockets of all endpoints but those used.
func (k *Keeper) Keep(used map[wire.Endpoint]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e, s := range k.open {
		if !used[e] {
			s.close()
			delete(k.open, e)
		}
	}
	k.polled.changed()
}

// Close closes all sockets for good, but for those of QUIC, and has calls of Open fail. The files of Unix sockets are
// removed, unless others have taken their places. Processes that have copies of sockets can serve what is queued on them.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.open {
		if s.secret != nil { // connections would come to others if some were closed
			k.leaving = append(k.leaving, s)
		} else {
			s.close()
		}
	}
	for _, o := range k.opening {
		o.cancel(errors.New("the pack is stopping"))
	}
	for _, p := range k.passed {
		p.leave()
	}
	clear(k.open)
	k.closed, k.passed = true, nil
	k.polled.changed()
}

// End closes what Close has left, when no worker is left either.
func (k *Keeper) End() {
	k.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.leaving {
		s.close()
	}
	k.leaving = nil
}

// close closes the sockets for good.
func (s *set) close() {
	if s.file != nil {
		s.file.remove()
	}
	if s.given != "" {
		s.leave()
		s.closeLast(1)
	} else if isUnix(s.listeners[0]) {
		shutdown(s.listeners[0]) // who has a copy serves what is queued
	}
	s.release()
}

// release closes this process's copies of the sockets, which may go on in another.
func (s *set) release() {
	for _, l := range s.listeners {
		closeAtOnce(l)
	}
	if s.file != nil {
		s.file.release()
	}
}

// closeAtOnce closes a socket. A worker may have connected it to somebody who does not read, and have its close wait.
func closeAtOnce(l socket) {
	if !isPacket(l) && !isListening(l) { // else the option is for the connections that are accepted
		fdmsg.DontLinger(l)
	}
	l.Close()
}

// closeLast closes the sockets beyond the first n, to which the kernel was told to send nothing.
func (s *set) closeLast(n int) {
	for len(s.listeners) > n {
		last := len(s.listeners) - 1 // closing any other would renumber the kernel's group
		// In the instant of the close the kernel may choose it all the same (seen with IPv4 on 6.18, see
		// BenchmarkLeave in reuseport). A SYN that is ignored then is sent again.
		reuseport.Quiesce(s.listeners[last]) // without the right to it, that one connection is reset
		closeAtOnce(s.listeners[last])
		s.listeners = s.listeners[:last]
	}
}
