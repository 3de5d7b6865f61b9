//go:build unix && !aix

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
)

var usualSignals = []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

// connect takes over from the predecessor.
func connect(s *inheritedSocket) (*control, *holdings, error) {
	defer s.file.Close()
	conn, err := fdmsg.Conn(s.file)
	if err != nil {
		return nil, nil, err
	}
	c := &control{conn: conn, replaced: make(chan struct{}), ended: make(chan struct{})}
	all, err := c.takeOver()
	if err != nil {
		return c, nil, err
	}
	go c.listen()
	return c, all, nil
}

// listen hears what the predecessor says after it has handed over.
func (c *control) listen() {
	defer close(c.ended)
	said := false
	for {
		m, files, err := c.receive()
		closeAll(files)
		if err != nil {
			fdmsg.Discard(c.conn) // what cannot be understood is not the end
			return
		}
		if m.Type == msgReplaced && !said {
			close(c.replaced)
			said = true
		}
	}
}

// ready tells the predecessor, and waits until it has begun to finish. A predecessor that ends without saying anything
// has been replaced all the same: one that wants to go on, or to stop for good, ends this process first.
func (c *control) ready() error {
	if err := c.send(message{Type: msgReady}); err != nil && !isGone(err) {
		return err
	}
	select {
	case <-c.replaced:
	case <-c.ended:
	}
	return nil
}

// draining returns how many predecessors have not ended. It is called with mu locked.
func (u *Upgrader) draining() (n int) {
	if u.parent != nil {
		select {
		case <-u.parent.ended:
		default:
			n++
		}
	}
	u.ancestors = slices.DeleteFunc(u.ancestors, func(f *os.File) bool {
		ended := false
		if rc, err := f.SyscallConn(); err == nil {
			rc.Control(func(fd uintptr) {
				got, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
				ended = got == 0 && err == nil
			})
		}
		if ended {
			f.Close()
		}
		return ended
	})
	return n + len(u.ancestors)
}

// successor is a new process.
type successor struct {
	*control
	cmd     *exec.Cmd
	exited  chan error
	pidFile string
}

// start starts a new process, hands over, and waits until it is ready.
func start(ctx context.Context, image *Image, all *holdings, pidFile string) (*successor, error) {
	conn, theirs, err := fdmsg.Pair("successor")
	if err != nil {
		return nil, err
	}
	s := &successor{&control{conn: conn}, nil, make(chan error, 1), pidFile}
	if s.cmd, err = command(image, successorEnv, theirs, nil); err == nil {
		s.cmd.Stdin = os.Stdin
		err = s.cmd.Start()
	}
	theirs.Close()
	if err != nil {
		s.close()
		return nil, fmt.Errorf("executable %s: %w", image.name, err)
	}
	go func() { s.exited <- s.cmd.Wait() }()
	ready := make(chan error, 1)
	go func() { ready <- s.attend(all) }()
	select {
	case err = <-ready:
		if err == nil {
			return s, nil
		}
		err = s.whyEnded(err)
	case status := <-s.exited:
		s.exited <- status
		s.conn.SetDeadline(time.Now().Add(grace)) // what it said is there; its offspring may hold the socket
		err = s.whyEnded(<-ready)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.kill()
	return nil, fmt.Errorf("the new process, %d: %w", s.cmd.Process.Pid, err)
}

// whyEnded returns why a successor speaks no more: what it has said of that, or how it has ended, if it is about to.
func (s *successor) whyEnded(err error) error {
	if _, said := errors.AsType[failedError](err); said {
		return err
	}
	select {
	case status := <-s.exited:
		s.exited <- status
		return endedEarly(status, "it was ready")
	case <-time.After(grace):
		return err
	}
}

func (s *successor) pid() int { return s.cmd.Process.Pid }

// kill ends the process, waits a while until it has ended, and removes what it may have written.
func (s *successor) kill() {
	s.cmd.Process.Kill()
	select {
	case <-s.exited:
	case <-time.After(grace):
	}
	if s.pidFile != "" {
		os.Remove(writtenBy(s.pidFile, s.pid()))
	}
	s.close()
}

// attend hands everything over and waits until the successor is ready.
func (s *successor) attend(all *holdings) error {
	sent := s.handOver(all)
	for { // what it says may tell why nothing can be sent
		m, files, err := s.receive()
		closeAll(files)
		switch {
		case err != nil:
			return errors.Join(sent, err)
		case m.Type == msgFailed:
			return failedError(m.Error)
		case m.Type == msgReady && sent == nil:
			return nil
		}
	}
}
