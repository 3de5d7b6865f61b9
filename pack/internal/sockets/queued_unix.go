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
			if r == unix.POLLIN { // others are those of a socket that does not listen any more
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
