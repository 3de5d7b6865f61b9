//go:build unix

package procgroup

import (
	"cmp"
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
)

const terminate = unix.SIGTERM

// askToEnd asks a process to end.
func askToEnd(signal func(os.Signal) error) error {
	if err := signal(terminate); err != nil {
		return err
	}
	signal(unix.SIGCONT) // by now it may have ended
	return nil
}

// child is a process that this one started.
type child struct {
	process *os.Process
	reap    func() error // reads its exit status
	conn    *net.UnixConn
	served  chan struct{} // closed when Serve has returned
	unwatch func()

	// Of the owner's goroutine.
	ended    bool // its end is being dealt with
	reaping  bool // its exit status is being read: its numbers may soon belong to somebody else
	released bool
}

// waitDelay is the least time that what copies between a process and a Reader or a Writer gets after its end.
const waitDelay = time.Second

func (g *Group) startProcess(p *Process) (handle, error) {
	cmd, err := g.Command(p.ID)
	if err == nil && cmd == nil {
		err = errors.New("Group.Command returned no command, and no error")
	}
	if err != nil {
		return nil, err
	}
	if cmd.Process != nil {
		return nil, errors.New("what Command has returned was started already: it must be another each time")
	}
	ours, theirs, err := fdmsg.Pair("control socket")
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	streams, outputs, err := g.capture(p.ID, cmd)
	if err != nil {
		ours.Close()
		return nil, err
	}
	fd := 3 + len(cmd.ExtraFiles)
	cmd.ExtraFiles = append(slices.Clip(cmd.ExtraFiles), theirs)
	cmd.Env = append(cmd.Environ(), controlEnv+"="+formatControl(fd, os.Getpid()))
	attr := syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	// The leader of a session leads a process group, too, and cannot ask for one (setpgid(2)).
	attr.Setpgid, attr.Pgid = !attr.Setsid, 0
	cmd.SysProcAttr = &attr
	cmd.WaitDelay = cmp.Or(cmd.WaitDelay, waitDelay)
	err = g.Start(p.ID, cmd)
	if err == nil && cmd.Process == nil {
		err = errors.New("Group.Start has not started the command")
	}
	if err != nil {
		ours.Close()
		closeAll(streams, outputs)
		return nil, err
	}
	closeEach(outputs)
	p.PID = cmd.Process.Pid
	p.streams = streams
	for _, s := range streams {
		g.out.start(s, p.PID)
	}
	return newChild(p, cmd.Process, func() error { return collect(cmd, lastWords) }, ours), nil
}

// giveTo gives a pipe to the user that a command will run as, who could not open it by its name else (/dev/stdout,
// proc(5)). Where that is refused it can still be written to.
func giveTo(cmd *exec.Cmd, f *os.File) {
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Credential != nil {
		f.Chown(int(cmd.SysProcAttr.Credential.Uid), int(cmd.SysProcAttr.Credential.Gid))
	}
}

var errCopying = errors.New("ended, but what copies its Stdin, Stdout or Stderr hangs in its Read or Write")

// collect reads the exit status of a command that has ended, and waits for what copies: it ends at WaitDelay, and if it
// does not, because it hangs, it is left after more patience.
func collect(cmd *exec.Cmd, patience time.Duration) error {
	if !watches || isFile(cmd.Stdin) && isFile(cmd.Stdout) && isFile(cmd.Stderr) {
		return cmd.Wait()
	}
	status := make(chan error, 1)
	go func() { status <- cmd.Wait() }()
	timer := time.NewTimer(cmd.WaitDelay + patience)
	defer timer.Stop()
	select {
	case err := <-status:
		return err
	case <-timer.C:
		return errCopying
	}
}

// isFile reports whether a process gets a stream itself, so that nothing copies.
func isFile(stream any) bool {
	if stream == nil {
		return true
	}
	_, ok := stream.(*os.File)
	return ok
}

func newChild(p *Process, process *os.Process, reap func() error, control *net.UnixConn) *child {
	unreaped.Store(p.PID, true)
	exited, unwatch := watch(p.PID)
	c := &child{process: process, reap: reap, conn: control, served: make(chan struct{}), unwatch: unwatch}
	go c.wait(p, exited)
	return c
}

// adoptProcess takes over a process that another Group released, whose PID is set. One that cannot be spoken to is
// asked to end, and reaped.
func (g *Group) adoptProcess(p *Process, control *os.File) (handle, error) {
	process, err := os.FindProcess(p.PID)
	if err != nil {
		return nil, err
	}
	conn, err := adoptControl(control)
	if err != nil {
		askToEnd(process.Signal)
		go process.Wait()
		return nil, err
	}
	return newChild(p, process, func() error {
		status, err := process.Wait()
		if err == nil && !status.Success() {
			err = &exec.ExitError{ProcessState: status}
		}
		return err
	}, conn), nil
}

// adoptControl makes a connection of the parent's end, whose file it closes.
func adoptControl(control *os.File) (*net.UnixConn, error) {
	if control == nil {
		return nil, errors.New("it has no control socket")
	}
	defer control.Close()
	return fdmsg.Conn(control)
}

// lastWords is how long Serve may take to read what a process has said before it ended. Then the control socket is cut.
const lastWords = 5 * time.Second

// wait waits for the end of the process and tells the group of it, unless the process was released. It reaps the
// process last, where that can be, so that until then what the process has started can be killed.
func (c *child) wait(p *Process, exited func()) {
	exited()
	p.group.do(func(*owner) { c.ended, c.reaping = !c.released, !c.released && !watches })
	if !c.ended {
		return
	}
	var err error
	if !watches {
		err = c.reap()
	}
	c.hearOut()
	if watches {
		p.group.do(func(*owner) {
			if p.group.KillGroup {
				c.kill()
			}
			c.reaping = true
		})
		err = c.reap()
	}
	unreaped.Delete(p.PID)
	p.group.do(func(o *owner) { o.gone(p, err) })
}

// hearOut waits until Serve has read what the process has said. What the process has started may hold the other end
// open, but does not speak for it.
func (c *child) hearOut() {
	hangUp(c.conn)
	cut := time.AfterFunc(lastWords, func() { c.conn.Close() })
	<-c.served
	cut.Stop()
	c.conn.Close()
}

func (c *child) serve(p *Process) {
	defer close(c.served)
	p.group.Serve(p, c.conn)
}

func (c *child) release(p *Process, done func()) bool {
	if c.ended {
		return false
	}
	c.released = true
	c.unwatch()
	c.conn.SetReadDeadline(time.Unix(1, 0))
	go func() {
		<-c.served
		done()
	}()
	return true
}

// control returns a copy of the parent's end and closes the other.
func (c *child) control() (*os.File, error) {
	defer c.conn.Close()
	defer c.process.Release()
	return c.conn.File()
}

func (c *child) signal(s os.Signal) error { return c.process.Signal(s) }

// kill kills the process group, and the process, which may have gone to another. The first is safe only while the leader
// is not reaped, for until then no other process group can have its number; owner and watcher agree on that by reaping.
func (c *child) kill() {
	if watches && !c.reaping {
		unix.Kill(-c.process.Pid, unix.SIGKILL)
	}
	c.process.Kill()
}

func openControl(fd int) (*net.UnixConn, error) {
	// It arrives without close-on-exec. Look before taking it: an os.File would close what is not ours.
	if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "descriptor "+strconv.Itoa(fd))
	defer f.Close()
	return fdmsg.Conn(f)
}

// isSocket reports whether the descriptor is a stream socket of the Unix domain, as control sockets are.
func isSocket(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return false
	}
	name, err := unix.Getsockname(fd)
	_, ok := name.(*unix.SockaddrUnix)
	return err == nil && ok
}

// controlEnded reports whether the descriptor is a socket whose other end is closed.
func controlEnded(fd int) bool {
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(ready, 0); n < 1 || err != nil {
		return false
	}
	n, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK)
	return err == nil && n == 0
}

// readNow reads what is there, without waiting, whatever the deadline of the file.
func readNow(f *os.File, b []byte) (n int, err error) {
	f.SetReadDeadline(time.Time{})
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	rerr := rc.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), b)
		return true
	})
	return n, errors.Join(rerr, err)
}

// reopen returns a copy of a file that can be interrupted, also if the file came from another program.
func reopen(f *os.File) (*os.File, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	cerr := rc.Control(func(from uintptr) {
		syscall.ForkLock.RLock() // no fork before it is closed on exec; not every system has F_DUPFD_CLOEXEC
		defer syscall.ForkLock.RUnlock()
		if fd, err = unix.Dup(int(from)); err == nil {
			unix.CloseOnExec(fd)
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
