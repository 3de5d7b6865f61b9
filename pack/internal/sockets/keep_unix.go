//go:build unix

package sockets

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// bare is a socket of which package net knows nothing. One of package net is registered with epoll(7) or kqueue(2),
// for as long as it is open: each connection that arrives would wake this process, which has no use for that. (It cost
// 5 µs of processor time for each, on Linux 6.18.)
type bare struct {
	addr net.Addr

	mu sync.RWMutex // read-locked while the descriptor is used
	fd int          // -1 if it is closed
}

// keep takes over a socket, which is closed as far as package net is concerned.
func keep(l socket) (socket, error) {
	defer l.Close()
	s := &bare{addr: l.Addr(), fd: -1}
	rc, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := rc.Control(func(fd uintptr) { s.fd, err = dup(int(fd)) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// served returns what package net has for a socket, for a process that serves by itself.
func served(s socket) (io.Closer, error) {
	f, err := s.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if isPacket(s) {
		return net.FilePacketConn(f)
	}
	return net.FileListener(f)
}

func (s *bare) Addr() net.Addr { return s.addr }

func (s *bare) File() (f *os.File, err error) {
	cerr := s.Control(func(fd uintptr) {
		var n int
		if n, err = dup(int(fd)); err == nil {
			f = os.NewFile(uintptr(n), s.addr.String())
		}
	})
	if cerr != nil {
		return nil, cerr
	}
	return f, err
}

func (s *bare) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	fd := s.fd
	s.fd = -1
	return os.NewSyscallError("close", syscall.Close(fd))
}

func (s *bare) SyscallConn() (syscall.RawConn, error) { return s, nil }

// Control implements syscall.RawConn.
func (s *bare) Control(f func(fd uintptr)) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	f(uintptr(s.fd))
	return nil
}

// Read and Write implement syscall.RawConn. Nobody reads from a listening socket.

func (s *bare) Read(func(fd uintptr) (done bool)) error  { return syscall.EINVAL }
func (s *bare) Write(func(fd uintptr) (done bool)) error { return syscall.EINVAL }
