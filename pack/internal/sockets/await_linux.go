package sockets

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Await waits until a connection comes to a socket, the sockets become others, or ctx ends, and reports whether it is a
// connection. What it waits by stays for the next call until one comes. After that nothing is left of it, so that under
// load no connection wakes this process. One goroutine may call it at a time.
func (k *Keeper) Await(ctx context.Context) (comes bool) {
	k.mu.Lock()
	bell := k.polled.hang(k)
	k.mu.Unlock()
	if bell == nil {
		<-ctx.Done()
		return false
	}
	bell.SetReadDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { bell.SetReadDeadline(time.Unix(1, 0)) })()
	if comes = rings(bell); comes {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.polled.bell == bell {
			k.polled.removeBell()
		}
	}
	return comes
}

// hang returns the bell; nil if there can be none. It is an epoll(7) descriptor of its own, since that of the runtime
// would have each connection wake this process.
func (p *pollSet) hang(k *Keeper) *os.File {
	if p.bell != nil {
		return p.bell
	}
	p.queued(k)
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	unix.SetNonblock(fd, true) // or the runtime would not wait for it
	for _, f := range p.fds {
		if f.Revents&^unix.POLLIN != 0 {
			continue // it was shut down, which would ring for ever
		}
		err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, int(f.Fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT})
		if err != nil {
			unix.Close(fd)
			return nil
		}
	}
	p.bell = os.NewFile(uintptr(fd), "bell")
	return p.bell
}

// rings waits until the bell rings, and reports whether it does before its deadline.
func rings(bell *os.File) (does bool) {
	rc, err := bell.SyscallConn()
	if err != nil {
		return false
	}
	rc.Read(func(fd uintptr) bool {
		var first [1]unix.EpollEvent
		n, err := unix.EpollWait(int(fd), first[:], 0)
		does = n > 0
		return does || err != nil && err != unix.EINTR
	})
	return does
}
