//go:build unix && !aix

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
)

// grace is how long a program may take to end when it has answered, and an answer to come when the program has ended,
// which is there by then.
const grace = time.Second

func preflight(ctx context.Context, i *Image, question []byte, env []string) ([]byte, error) {
	conn, theirs, err := fdmsg.Pair("preflight")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	cmd, err := command(i, preflightEnv, theirs, env)
	if err == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		err = i.named(cmd.Start())
	}
	theirs.Close()
	if err != nil {
		return nil, err
	}
	kill := func() { unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	go func() {
		conn.Write(question) // until it has been read, or the connection is closed
		conn.CloseWrite()
	}()
	type result struct {
		answer []byte
		err    error
	}
	answered, exited := make(chan result, 1), make(chan error, 1)
	go func() {
		b, err := readAnswer(conn)
		answered <- result{b, err}
	}()
	go func() { exited <- cmd.Wait() }()
	select {
	case <-ctx.Done():
		kill()
		<-exited
		return nil, context.Cause(ctx)
	case status := <-exited:
		kill() // what it has left behind
		conn.SetReadDeadline(time.Now().Add(grace))
		r := <-answered
		if errors.Is(r.err, errNoAnswer) {
			return nil, endedEarly(status, "it answered")
		}
		return r.answer, r.err
	case r := <-answered:
		select {
		case status := <-exited:
			if errors.Is(r.err, errNoAnswer) {
				r.err = endedEarly(status, "it answered")
			}
			kill()
		case <-time.After(grace):
			kill()
			<-exited
		case <-ctx.Done():
			kill()
			<-exited
		}
		return r.answer, r.err
	}
}

// named returns an error of starting an image with the name of its file in it, where it has a number, and with what may
// be wrong.
func (i *Image) named(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok && e.Path == i.path {
		err = &fs.PathError{Op: e.Op, Path: i.name, Err: e.Err}
	}
	for errno, why := range map[error]string{
		unix.ENOEXEC: "it is no program for this machine, or not a whole one",
		unix.EACCES:  "this user may not execute it, or its file system is mounted noexec",
		unix.ETXTBSY: "somebody is writing to it: put it there by renaming",
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %s", err, why)
		}
	}
	return err
}

// endedEarly says that a program has ended before something, and how.
func endedEarly(status error, before string) error {
	if status == nil {
		return fmt.Errorf("it ended with exit status 0 before %s", before)
	}
	return fmt.Errorf("it ended before %s: %w", before, status)
}
