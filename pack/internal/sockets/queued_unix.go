//go:build unix

package sockets

import (
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// pollSet is what poll(2) is asked about. It is made when first needed after a change.
type pollSet struct {
	fds   []unix.PollFd
	refs  []Ref // of fds
	valid bool
}

func (p *pollSet) changed() { p.valid = false }

func (p *pollSet) queued(k *Keeper) []Ref {
	if !p.valid {
		p.gather(k)
	}
	n, err := unix.Poll(p.fds, 0)
	if err != nil {
		return nil
	}
	var queued []Ref
	for i := range p.fds {
		if n == 0 {
			break
		}
		if r := p.fds[i].Revents; r != 0 {
			n--
			if r == unix.POLLIN { // a socket that was shut down has more to say
				queued = append(queued, p.refs[i])
			}
		}
	}
	return queued
}

func (p *pollSet) gather(k *Keeper) {
	p.fds, p.refs = p.fds[:0], p.refs[:0]
	for _, e := range k.endpoints() {
		for i, l := range k.open[e].listeners {
			rc, err := l.(syscall.Conn).SyscallConn()
			if err != nil {
				continue
			}
			rc.Control(func(fd uintptr) { // it stays open until the set changes
				p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | refuses})
				p.refs = append(p.refs, Ref{e, i})
			})
		}
	}
	p.valid = true
}

// listensAgain undoes what a process that has a copy may have done to a socket: it may have shut it down, which is for
// good with a Unix socket, or may have left it no room for a queue. It reports whether the socket listens.
func listensAgain(l net.Listener) bool {
	rc, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	cerr := rc.Control(func(fd uintptr) {
		if a, ok := l.Addr().(*net.TCPAddr); ok && !listens(int(fd)) {
			err = bindAgain(int(fd), a)
		}
		if err == nil {
			unix.Listen(int(fd), math.MaxInt32) // as many as the system allows
		}
		if err == nil && !listens(int(fd)) {
			err = unix.ESHUTDOWN
		}
	})
	return cerr == nil && err == nil
}

func listens(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | refuses}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&^unix.POLLIN == 0
}

// bindAgain binds a TCP socket to the address that it had. It does nothing if the socket still has it: only a port that
// the kernel had chosen is lost when a socket is shut down.
func bindAgain(fd int, a *net.TCPAddr) error {
	name, err := unix.Getsockname(fd)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		name.Port = a.Port
		copy(name.Addr[:], a.IP.To4())
	case *unix.SockaddrInet6:
		name.Port = a.Port
		copy(name.Addr[:], a.IP.To16())
		if i, err := net.InterfaceByName(a.Zone); err == nil {
			name.ZoneId = uint32(i.Index)
		}
	}
	if err == nil {
		err = unix.Bind(fd, name)
	}
	if err == unix.EINVAL {
		return nil
	}
	return err
}
