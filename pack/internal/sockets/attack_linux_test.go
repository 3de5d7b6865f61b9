package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// nobody is who attacks, and for whom sockets are made.
const nobody = 65534

// attack puts other files in the place of a socket as soon as that is there, until stdin ends: in turn a link to a
// file of root's, a link to a directory, and a socket of root's that is in the same directory.
func attack(path string) {
	go func() {
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	dir := path[:strings.LastIndexByte(path, '/')]
	fmt.Println("attacking")
	for i := 0; ; i++ {
		own := dir + "/own"
		os.Remove(own)
		target := []string{"../victim", "../directory"}[i/2%2]
		if err := os.Symlink(target, own); err != nil {
			panic(err)
		}
		for {
			var st unix.Stat_t
			if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
				break
			}
		}
		if i%2 == 0 {
			unix.Rename(own, path)
		} else {
			unix.Rename(dir+"/admin", path)
			for range i % 2000 { // let it be looked at
			}
			unix.Rename(path, dir+"/admin")
		}
		os.Remove(path)
	}
}

// asNobody has a test that is not for root run again by somebody else, if root runs it, and reports whether this is it.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	c := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// held is a file that is looked at whatever becomes of its name.
type held struct {
	path string
	fd   int
	was  string
}

func hold(t *testing.T, path string) *held {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	h := &held{path: path, fd: fd}
	h.was, _ = h.is(t)
	return h
}

// is returns what must not change of it, and whether it has a name.
func (h *held) is(t *testing.T) (properties string, named bool) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%o, %d:%d", st.Mode, st.Uid, st.Gid), st.Nlink > 0
}

// startAttack has nobody attack the Unix socket x in a directory of its own, until the test ends.
func startAttack(t *testing.T, base, dir string) {
	t.Helper()
	exe, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.WriteFile(base+"/test", exe, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(base + "/test")
	cmd.Env = append(os.Environ(), asAttacker+"="+dir+"/x")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// listenAsRoot makes a socket that only root may connect to.
func listenAsRoot(t *testing.T, path string) *held {
	t.Helper()
	k := keeper(t)
	if _, err := k.Open(t.Context(), local(path), 1); err != nil {
		t.Fatal(err)
	}
	return hold(t, path)
}

// TestAttack has another user, who may write in the directory of a Unix socket, swap files while root opens, quiesces
// and closes the socket.
func TestAttack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has something to lose")
	}
	base, err := os.MkdirTemp("", "sockets") // t.TempDir is out of reach for others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir := base + "/dir"
	if err := errors.Join(os.Chmod(base, 0o755), os.Mkdir(dir, 0o755), os.Chown(dir, nobody, nobody),
		os.WriteFile(base+"/victim", nil, 0o600), os.Mkdir(base+"/directory", 0o700)); err != nil {
		t.Fatal(err)
	}
	links := []*held{hold(t, base+"/victim"), hold(t, base+"/directory")}
	admin := listenAsRoot(t, dir+"/admin")
	startAttack(t, base, dir)

	limit := 2 * time.Second
	if testing.Short() {
		limit /= 10
	}
	e := local(dir + "/x")
	opened, swapped, other := 0, 0, 0
	for end := time.Now().Add(limit); time.Now().Before(end); {
		k := New(Files{Mode: 0o666, Owner: &Owner{nobody, nobody}})
		switch _, err := k.Open(t.Context(), e, 1); {
		case err == nil:
			opened++
			k.QuiesceEndpoint(e)
			handOut(k, e, 0)
		case errors.Is(err, errSwapped):
			swapped++
		default:
			other++
		}
		k.Close()
		for _, h := range append(links, admin) {
			if is, _ := h.is(t); is != h.was {
				t.Fatalf("%s was %s, is %s", h.path, h.was, is)
			}
		}
		for _, h := range links {
			if _, named := h.is(t); !named {
				t.Fatalf("%s was removed", h.path)
			}
		}
		if _, named := admin.is(t); !named { // by the attacker, who may, or in its name
			admin = listenAsRoot(t, admin.path)
		}
	}
	t.Logf("%d were opened, %d were swapped, %d failed otherwise", opened, swapped, other)
}

// TestMisusedSocket has a worker connect its socket, or bind it to another address. Whoever gets it next finds it as it
// was.
func TestMisusedSocket(t *testing.T) {
	k := keeper(t)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	e := tcp("127.0.0.1:0")
	address := open(t, k, e, 2).Address
	name := func(port int) unix.Sockaddr { return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}} }
	for what, misuse := range map[string]func(fd int){
		"connected": func(fd int) { unix.Connect(fd, name(other.Addr().(*net.TCPAddr).Port)) },
		"bound":     func(fd int) { unix.Bind(fd, name(0)) },
		"listening": func(fd int) { unix.Bind(fd, name(0)); unix.Listen(fd, 1) },
	} {
		for i := range 2 { // the first has a port that the kernel chose, the second was bound to it
			onDescriptor(t, listener(t, k, e, i), func(fd int) error {
				misuse(fd) // which may fail while it listens
				err := unix.Shutdown(fd, unix.SHUT_RD)
				misuse(fd)
				return err
			})
			if err := handOut(k, e, i); err != nil {
				t.Errorf("%s, socket %d: %v", what, i, err)
				continue
			}
			l, accepts := listener(t, k, e, i), 0
			onDescriptor(t, l, func(fd int) (err error) {
				accepts, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
				return err
			})
			if now := l.Addr().String(); accepts == 0 || now != address {
				t.Errorf("%s, socket %d: it listened on %s, and is at %s, accepting: %d", what, i, address, now, accepts)
			}
		}
	}

	// One that was bound to an address and a port for good is not handed out.
	lost := wire.Endpoint{Network: "tcp", Address: "127.0.0.1:0", Index: 1}
	open(t, k, lost, 1)
	l := listener(t, k, lost, 0)
	onDescriptor(t, l, func(fd int) error {
		there := &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 2}}
		return errors.Join(unix.Shutdown(fd, unix.SHUT_RD), unix.Bind(fd, there))
	})
	if err := handOut(k, lost, 0); err == nil || !strings.Contains(err.Error(), "does not listen there any more") {
		t.Errorf("a socket at another address: %v", err)
	}
}

// TestLockedSocket has a worker lock its socket. The others can still be made more, and fewer; and who asks again
// whether connections are kept out of it is told again that they are not.
func TestLockedSocket(t *testing.T) {
	k := keeper(t)
	e := tcp("127.0.0.1:0")
	info := open(t, k, e, 2)
	onDescriptor(t, listener(t, k, e, 0), func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
	})
	if err := k.Grow(t.Context(), 3, nil); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := k.Direct(n+1, nil); err != nil {
			t.Fatal(err)
		}
		info.Sockets = 3
		if got := chosen(t, k, info); len(got) != n+1 {
			t.Errorf("directed to %d sockets, connections came to %v", n+1, got)
		}
	}
	for range 2 {
		if err := k.QuiesceFinal(0); !errors.Is(err, os.ErrPermission) {
			t.Errorf("%v; want that it is not permitted", err)
		}
	}
}

// TestCloseDoesNotLinger closes a socket that its worker has connected to somebody who does not read, and wants to
// linger.
func TestCloseDoesNotLinger(t *testing.T) {
	k := keeper(t)
	e := tcp("127.0.0.1:0")
	open(t, k, e, 1)
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	worker := listener(t, k, e, 0)
	onDescriptor(t, worker, func(fd int) error {
		name := &unix.SockaddrInet4{Port: deaf.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
		err := errors.Join(unix.Shutdown(fd, unix.SHUT_RD),
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 5}))
		unix.Connect(fd, name)
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		for err == nil {
			_, werr := unix.Write(fd, make([]byte, 1<<16))
			if werr == unix.EAGAIN {
				break
			}
			err = werr
		}
		return err
	})
	worker.Close()
	begun := time.Now()
	k.Close()
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestWithoutProc removes what a process has left that was killed while the file had its other name, without /proc.
func TestWithoutProc(t *testing.T) {
	const inside = "SOCKETS_TEST_WITHOUT_PROC"
	if os.Getenv(inside) == "" {
		c := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), inside+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		out, err := c.CombinedOutput()
		switch {
		case errors.Is(err, os.ErrPermission):
			t.Skip(err)
		case err != nil:
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("none", "/proc", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"x", ".x.quiesced"} {
		l, err := net.Listen("unix", dir+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	}
	k := keeper(t)
	e := local(dir + "/x")
	if _, err := k.Open(t.Context(), e, 1); err != nil {
		t.Skip(err) // before Linux 6.6 it takes /proc to set the permissions
	}
	if err := k.QuiesceEndpoint(e); err != nil {
		t.Error(err)
	}
	isEmptyBut(t, dir, ".x.quiesced")
}

// TestNotGiven says what it takes to give a file away.
func TestNotGiven(t *testing.T) {
	if !asNobody(t) {
		return
	}
	path := t.TempDir() + "/x"
	_, err := New(Files{Mode: 0o600, Owner: &Owner{0, 0}}).Open(t.Context(), local(path), 1)
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "(which takes root or CAP_CHOWN)") {
		t.Error(err)
	}
	isEmpty(t, path)
}
