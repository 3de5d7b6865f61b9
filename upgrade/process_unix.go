//go:build unix && !aix

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/executable"
	"github.com/gopherpack/gopherpack/internal/fdmsg"
	"github.com/gopherpack/gopherpack/internal/inplace"
)

// The variables that tell a program what it is: "DESCRIPTOR,PROCESS". The process is the parent, or in place itself: a
// program that inherits a variable and is not meant does not believe it.
const (
	childEnv   = "UPGRADE_SUCCESSOR" // a new process
	inPlaceEnv = "UPGRADE_IN_PLACE"  // the same process
	tryOutEnv  = "UPGRADE_TRY_OUT"   // a process that is to end in New
)

// inherit takes over from a predecessor, if there is one.
func (u *Upgrader) inherit() error {
	if fd, ok := meant(tryOutEnv, os.Getppid()); ok {
		f := os.NewFile(uintptr(fd), "try out")
		fmt.Fprint(f, protocolVersion)
		os.Exit(0)
	}
	if fd, ok := meant(inPlaceEnv, os.Getpid()); ok {
		c, err := openControl(fd)
		if err != nil {
			return err
		}
		defer c.close()
		u.succeeds = true
		return u.receiveAll(c)
	}
	fd, ok := meant(childEnv, os.Getppid())
	if !ok {
		return nil
	}
	c, err := openControl(fd)
	if err != nil {
		return err
	}
	c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // it writes without waiting
	if err := u.receiveAll(c); err != nil {
		c.close()
		return err
	}
	c.conn.SetReadDeadline(time.Time{})
	c.ended = make(chan struct{})
	go func() {
		io.Copy(io.Discard, c.conn)
		close(c.ended)
	}()
	u.parent, u.succeeds = c, true
	return nil
}

// meant returns the descriptor in a variable, if it is meant for this process, and removes the variable.
func meant(variable string, process int) (fd int, ok bool) {
	text, ok := os.LookupEnv(variable)
	if !ok {
		return -1, false
	}
	os.Unsetenv(variable)
	first, second, _ := strings.Cut(text, ",")
	fd, err := strconv.Atoi(first)
	pid, perr := strconv.Atoi(second)
	if err != nil || perr != nil || fd < 3 || pid != process {
		return -1, false
	}
	unix.CloseOnExec(fd)
	return fd, true
}

func openControl(fd int) (*control, error) {
	f := os.NewFile(uintptr(fd), "predecessor")
	defer f.Close()
	conn, err := fdmsg.Conn(f)
	return &control{conn: conn}, err
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

// commandFor returns the command of a program that gets a descriptor and is told so.
func commandFor(image *executable.Image, variable string, theirs *os.File) (*exec.Cmd, error) {
	path, err := image.Path()
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{
		Path: path, Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Env:        append(os.Environ(), fmt.Sprintf("%s=3,%d", variable, os.Getpid())),
		ExtraFiles: []*os.File{theirs},
	}, nil
}

// start starts a new process and waits until it is ready.
func (u *Upgrader) start(ctx context.Context, image *executable.Image) (*control, error) {
	conn, theirs, err := fdmsg.Pair("successor")
	if err != nil {
		return nil, err
	}
	ours := &control{conn: conn}
	cmd, err := commandFor(image, childEnv, theirs)
	if err == nil {
		err = cmd.Start()
	}
	theirs.Close()
	if err != nil {
		ours.close()
		return nil, err
	}
	exited, ready := make(chan error, 1), make(chan error, 1)
	go func() {
		status := cmd.Wait()
		// What it said before counts: one that was ready has taken over, even if it was told to stop at once. The socket
		// has ended with it, unless something that it started has a copy.
		ours.conn.SetReadDeadline(time.Now().Add(time.Second))
		exited <- status
	}()
	go func() { ready <- u.attend(ours) }()
	select {
	case err = <-ready:
		if err == nil {
			return ours, nil
		}
		// It speaks no more. If it is about to end, how it ends tells more.
		select {
		case status := <-exited:
			err = ended(status)
		case <-time.After(time.Second):
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	cmd.Process.Kill()
	ours.close()
	return nil, fmt.Errorf("the new process, %d: %w", cmd.Process.Pid, err)
}

func ended(status error) error {
	if status == nil {
		return errors.New("it ended with exit status 0 before it was ready")
	}
	return fmt.Errorf("it ended before it was ready: %w", status)
}

// attend hands everything over and waits until the successor is ready.
func (u *Upgrader) attend(c *control) error {
	if err := u.handOver(c); err != nil {
		return err
	}
	for {
		m, files, err := c.receive()
		closeAll(files)
		if err != nil {
			return err
		}
		if m.Type == msgReady {
			return nil
		}
	}
}

// tryOut runs an executable as far as New.
func tryOut(ctx context.Context, image *executable.Image) error {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	cmd, err := commandFor(image, tryOutEnv, theirs)
	if err != nil {
		theirs.Close()
		return err
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	status := cmd.Wait()
	ours.SetReadDeadline(time.Now().Add(time.Second))
	answer, _ := io.ReadAll(io.LimitReader(ours, 100))
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the new executable, tried out: %w", context.Cause(ctx))
	case status != nil:
		return fmt.Errorf("the new executable, tried out: %w", status)
	case string(answer) != strconv.Itoa(protocolVersion):
		return fmt.Errorf("the new executable, tried out, does not call New, or speaks version %q of the protocol, not %d", answer, protocolVersion)
	}
	return nil
}

// become becomes the new program, to which everything is handed over by a socket whose both ends it inherits: what is
// written before is read after.
func (u *Upgrader) become() error {
	image, err := executable.Open(u.path)
	if err != nil {
		return err
	}
	defer image.Close()
	path, err := image.Path()
	if err != nil {
		return err
	}
	conn, theirs, err := fdmsg.Pair("successor")
	if err != nil {
		return err
	}
	ours := &control{conn: conn}
	defer ours.close()
	defer theirs.Close()
	u.parent, u.ancestors = nil, nil
	ours.conn.SetWriteDeadline(time.Now().Add(time.Second)) // nobody reads yet: it must fit into the socket's buffer
	if err := u.handOverLocked(ours); err != nil {
		return err
	}
	fd, err := inplace.Descriptor(theirs)
	if err != nil {
		return err
	}
	env := append(os.Environ(), fmt.Sprintf("%s=%d,%d", inPlaceEnv, fd, os.Getpid()))
	return inplace.Exec(path, os.Args, env, theirs)
}
