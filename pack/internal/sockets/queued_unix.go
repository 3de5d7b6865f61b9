//go:build unix

package sockets

import (
	"math"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// pollSet is what poll(2) is asked about. It is made when first needed after a change.
type pollSet struct {
	fds   []unix.PollFd
	refs  []Ref // of fds
	valid bool
	bell  *os.File // rings when a connection comes; nil if there is none
}

func (p *pollSet) changed() {
	p.valid = false
	p.removeBell()
}

func (p *pollSet) removeBell() {
	if p.bell != nil {
		p.bell.Close()
		p.bell = nil
	}
}

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
		if e.IsPacket() {
			continue // datagrams come all the time, and nobody tells how many are read
		}
		for i, l := range k.open[e].listeners {
			rc, err := l.SyscallConn()
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
// good with a Unix socket, may have left it no room for a queue, or may have connected a TCP socket or bound it to
// another address. It reports whether the socket listens where it did.
func listensAgain(l socket) bool {
	if isPacket(l) {
		return receivesAgain(l)
	}
	rc, err := l.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	rc.Control(func(fd uintptr) {
		a, tcp := l.Addr().(*net.TCPAddr)
		again := func() bool {
			unix.Listen(int(fd), math.MaxInt32) // as many as the system allows
			return listens(int(fd)) && (!tcp || isBoundTo(int(fd), a))
		}
		if is = again(); !is && tcp {
			disconnect(int(fd))
			bindAgain(int(fd), a)
			is = again()
		}
	})
	return is
}

// receivesAgain is listensAgain for a packet socket, which may have been connected to somebody, or shut down for good.
func receivesAgain(l socket) (does bool) {
	rc, err := l.SyscallConn()
	if err != nil {
		return false
	}
	rc.Control(func(fd uintptr) {
		a := inetAddr(l.Addr())
		if _, err := unix.Getpeername(int(fd)); err == nil {
			disconnect(int(fd))
			if !isBoundTo(int(fd), a) { // the kernel had chosen the port
				bindAgain(int(fd), a)
			}
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | refuses}}
		_, err := unix.Poll(fds, 0)
		does = err == nil && fds[0].Revents&^unix.POLLIN == 0 && isBoundTo(int(fd), a)
	})
	return does
}

// isListening reports whether a socket listens as it is.
func isListening(l socket) (is bool) {
	if rc, err := l.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) { is = listens(int(fd)) })
	}
	return is
}

func listens(fd int) bool {
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || accepts == 0 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | refuses}}
	_, err = unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&^unix.POLLIN == 0
}

func isBoundTo(fd int, a *net.TCPAddr) bool {
	name, _ := unix.Getsockname(fd)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return name.Port == a.Port && a.IP.Equal(name.Addr[:])
	case *unix.SockaddrInet6:
		return name.Port == a.Port && a.IP.Equal(name.Addr[:])
	}
	return false
}

// bindAgain binds a TCP socket to the address that it had, unless it has one: only a port that the kernel had chosen is
// lost when a socket is shut down.
func bindAgain(fd int, a *net.TCPAddr) {
	name, _ := unix.Getsockname(fd)
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
	if name != nil {
		unix.Bind(fd, name)
	}
}
