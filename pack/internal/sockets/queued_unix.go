//go:build unix

package sockets

import (
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

// listens reports whether a socket still does: a process that has a copy may have shut it down.
func listens(c syscall.Conn) bool {
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	fds := []unix.PollFd{{Events: unix.POLLIN | refuses}}
	cerr := rc.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		_, err = unix.Poll(fds, 0)
	})
	return cerr == nil && err == nil && fds[0].Revents&^unix.POLLIN == 0
}
