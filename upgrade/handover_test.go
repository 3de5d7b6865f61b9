//go:build linux

package upgrade_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/reuseport"
	"github.com/gopherpack/gopherpack/upgrade"
)

// These tests look at what is handed over: that it is the very same socket or file, and works.

// inode returns which socket or file it is.
func inode(c any) (uint64, error) {
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var s unix.Stat_t
	cerr := rc.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &s) })
	if cerr != nil {
		return 0, cerr
	}
	return s.Ino, err
}

func init() {
	scripts["sockets"] = func(l *life) error {
		for _, where := range everywhere(l.dir) {
			var c any
			var address net.Addr
			if listener, err := l.Listen(l.ctx, where[0], where[1]); err == nil {
				c, address = listener, listener.Addr()
				defer listener.Close()
			} else if packets, perr := l.ListenPacket(l.ctx, where[0], where[1]); perr == nil {
				c, address = packets, packets.LocalAddr()
				defer packets.Close()
			} else {
				return fmt.Errorf("%w, %w", err, perr)
			}
			n, err := inode(c)
			if err != nil {
				return err
			}
			l.say("has:", where[0], where[1], address, n)
		}
		return nil
	}
}

// everywhere returns addresses of all kinds, some of them more than once.
func everywhere(dir string) (all [][2]string) {
	for _, network := range []string{"tcp", "tcp4", "udp", "udp4"} {
		all = append(all, [2]string{network, "127.0.0.1:0"}, [2]string{network, "127.0.0.1:0"}, [2]string{network, ":0"})
	}
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		all = append(all, [2]string{network, dir + "/" + network}, [2]string{network, ""}, [2]string{network, ""},
			[2]string{network, "@" + dir + network})
	}
	return all
}

// TestHandsOverEverySocket has sockets of all kinds, those without a name of their own, too, be the same ones in the
// same order, generation after generation, and the files of Unix sockets stay until the last has ended.
func TestHandsOverEverySocket(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "sockets", how)
		first := r.said(0, "has:")
		if want := len(everywhere(r.dir)); len(first) != want {
			t.Fatalf("there are %d sockets, want %d", len(first), want)
		}
		for i := range 3 {
			line := r.replace(i + 1)
			if again := r.said(line, "has:"); !slices.Equal(again, first) {
				t.Errorf("the sockets were\n%q\nand are\n%q", first, again)
			}
			for _, network := range []string{"unix", "unixpacket", "unixgram"} {
				if _, err := os.Lstat(r.dir + "/" + network); err != nil {
					t.Error(err)
				}
			}
		}
		r.stop()
		for _, network := range []string{"unix", "unixpacket", "unixgram"} {
			if _, err := os.Lstat(r.dir + "/" + network); !os.IsNotExist(err) {
				t.Errorf("the file of a %s socket is left: %v", network, err)
			}
		}
	})
}

func init() {
	scripts["waits"] = func(l *life) error {
		if l.number > 0 {
			short, cancel := context.WithCancel(l.ctx)
			cancel()
			l.say("waited:", l.WaitParent(short))
			go func() { l.say("alone:", l.number, l.WaitParent(l.ctx)) }()
		}
		return nil
	}
}

// TestWaitsForPredecessor has a successor wait for a predecessor that refers to its Upgrader no more.
func TestWaitsForPredecessor(t *testing.T) {
	t.Parallel()
	r := perform(t, "waits", "lingers", "forgets")
	r.hangUp()
	if got, want := r.next("waited:"), context.Canceled.Error(); got != "upgrade: wait for the predecessor: "+want {
		t.Errorf("it waited, with a context that has ended: %q", got)
	}
	r.up(1)
	r.Until("the predecessor drains", program.Patience, func() bool { return len(r.said(0, "draining:")) > 0 })
	time.Sleep(50 * time.Millisecond) // for what should not happen
	if got := r.said(0, "alone:"); len(got) > 0 {
		t.Error("the successor takes its predecessor for ended")
	}
	r.set("forgets", false) // the successor, that is
	r.set("lingers", false)
	if got := r.next("alone:"); got != "1 <nil>" {
		t.Errorf("alone: %q", got)
	}
	r.stop()
}

// TestPredecessorKeepsNothing has a successor end before its predecessor, which must not hold open where it serves no
// more: clients would wait there for ever.
func TestPredecessorKeepsNothing(t *testing.T) {
	t.Parallel()
	r := perform(t, "sockets", "lingers")
	r.hangUp()
	r.up(1)
	address := strings.Fields(r.said(0, "has:")[0])[2]
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.Until("the successor drains", program.Patience, func() bool { return len(r.said(0, "draining:")) == 2 })
	c.SetDeadline(time.Now().Add(program.Patience))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection that waits in the queue: %v", err)
	}
	if c, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v, %v", c, err)
	}
	r.set("lingers", false)
	r.wait()
}

func init() {
	scripts["files"] = func(l *life) error {
		if l.number == 0 {
			return addFiles(l)
		}
		l.say("names:", strings.Join(l.FileNames(), " "))
		return useFiles(l)
	}
}

// addFiles hands on a connection to the test, a connected UDP socket, both ends of a pipe, and a file.
func addFiles(l *life) error {
	peer, err := os.ReadFile(l.dir + "/peer")
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", string(peer))
	if err != nil {
		return err
	}
	packets, err := l.ListenPacket(l.ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	connected, err := net.Dial("udp", packets.LocalAddr().String())
	if err != nil {
		return err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	f, err := os.Create(l.dir + "/file")
	if err != nil {
		return err
	}
	f.WriteString("0")
	all := map[string]any{"conn": conn, "connected": connected, "reader": reader, "writer": writer, "file": f}
	for fileName, f := range all {
		if err := l.AddFile(fileName, f.(syscall.Conn)); err != nil {
			return err
		}
		if n, err := inode(f); err != nil {
			return err
		} else {
			l.say("added:", fileName, n)
		}
		f.(io.Closer).Close()
	}
	return errors.Join(l.AddFile("not wanted", os.Stderr), l.AddFile("unused", os.Stderr))
}

// useFiles uses what was handed on.
func useFiles(l *life) error {
	l.RemoveFile("not wanted")
	l.RemoveFile("not there")
	files := map[string]*os.File{}
	for _, fileName := range l.FileNames() {
		if fileName == "unused" {
			continue
		}
		f, err := l.File(fileName)
		if err != nil {
			return err
		}
		n, err := inode(f)
		if err != nil {
			return err
		}
		l.say("got:", f.Name(), n)
		defer f.Close()
		files[fileName] = f
	}
	// A deadline holds only for what does not block.
	files["reader"].SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := files["reader"].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("an empty pipe: %w", err)
	}
	files["reader"].SetReadDeadline(time.Time{})
	text := make([]byte, 10)
	files["writer"].WriteString("x")
	if n, err := files["reader"].Read(text); n != 1 || err != nil {
		return fmt.Errorf("read %d bytes from a pipe, %w", n, err)
	}
	files["file"].WriteString(strconv.Itoa(l.number)) // behind what its predecessors have written
	packets, err := l.ListenPacket(l.ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer packets.Close()
	connected, err := net.FileConn(files["connected"])
	if err != nil {
		return err
	}
	defer connected.Close()
	connected.Write([]byte("xyz"))
	if n, from, err := packets.ReadFrom(text); n != 3 || err != nil || from.String() != connected.LocalAddr().String() {
		return fmt.Errorf("received %d bytes from %v, %w", n, from, err)
	}
	if files["conn"] == nil {
		return nil
	}
	conn, err := net.FileConn(files["conn"])
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(program.Patience))
	question, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Fprint(conn, l.number, " ", question)
	if l.is("last") {
		l.RemoveFile("conn")
	}
	return nil
}

// TestHandsOverFiles hands on what is no listener: each is the same, in its mode, and where it was.
func TestHandsOverFiles(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		r := prepareServer(t, how)
		if err := os.WriteFile(r.dir+"/peer", []byte(listener.Addr().String()), 0o600); err != nil {
			t.Fatal(err)
		}
		r.run(asScript + "=files " + r.dir)
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(program.Patience))
		first := slices.Sorted(slices.Values(r.said(0, "added:")))
		answers := bufio.NewReader(conn)
		for i := range 3 {
			if i == 2 {
				r.set("last", true)
				if how == "new process" {
					r.set("lingers", true)
				}
			}
			fmt.Fprintln(conn, "hello")
			line := r.replace(i + 1)
			if answer, err := answers.ReadString('\n'); answer != fmt.Sprintf("%d hello\n", i+1) || err != nil {
				t.Errorf("the connection: %q, %v", answer, err)
			}
			if again := r.said(line, "got:"); !slices.Equal(again, first) {
				t.Errorf("the files were\n%q\nand are\n%q", first, again)
			}
			names := "conn connected file reader writer"
			if i == 0 {
				names = "conn connected file not wanted reader unused writer"
			}
			if got := r.said(line, "names:"); !slices.Equal(got, []string{names}) {
				t.Errorf("there are %q, want %q", got, names)
			}
		}
		if n, err := answers.ReadByte(); err != io.EOF { // also while the predecessor has not ended
			t.Errorf("a connection that was closed: %v, %v", n, err)
		}
		if how == "new process" {
			r.set("lingers", false)
		}
		line := r.replace(4)
		if got, want := r.said(line, "names:"), "connected file reader writer"; !slices.Equal(got, []string{want}) {
			t.Errorf("there are %q, want %q", got, want)
		}
		if text, err := os.ReadFile(r.dir + "/file"); string(text) != "01234" || err != nil {
			t.Errorf("the file holds %q, %v", text, err)
		}
		r.stop()
	})
}

// TestOthersFileStays has somebody put another socket in the place of a server's, which is not to be removed.
func TestOthersFileStays(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "sockets", how)
		r.replace(1)
		var others []net.Listener
		for _, network := range []string{"unix", "unixgram"} {
			if err := os.Remove(r.dir + "/" + network); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("unix", r.dir+"/"+network)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			others = append(others, l)
		}
		r.replace(2)
		r.stop()
		for _, l := range others {
			if c, err := net.Dial("unix", l.Addr().String()); err != nil {
				t.Error(err)
			} else {
				c.Close()
			}
		}
	})
}

func init() {
	scripts["fails"] = func(l *life) error {
		if l.number == 0 {
			return l.AddFile("kept", os.Stderr)
		}
		if l.Returned() != "" {
			f, err := l.File("kept")
			if f == nil || err != nil {
				return fmt.Errorf("a file that the successor has removed: %v, %w", f, err)
			}
			return f.Close()
		}
		l.RemoveFile("kept")
		if _, err := l.Listen(l.ctx, "unix", l.dir+"/new"); err != nil {
			return err
		}
		return errors.New("no luck")
	}
}

// TestFailedSuccessorLeavesNoFile has successors open a Unix socket before they fail: the next one finds none.
func TestFailedSuccessorLeavesNoFile(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "fails", how)
		for i := range 2 {
			line := len(r.Lines(0))
			r.hangUp()
			if how == "in place" {
				if got := r.next("returned:"); got != "no luck" {
					t.Errorf("handed back: %q", got)
				}
				r.up(i + 1)
			} else if got := r.next("failed:"); !strings.HasSuffix(got, "it says: no luck") {
				t.Errorf("the upgrade: %q", got)
			}
			if _, err := os.Lstat(r.dir + "/new"); !os.IsNotExist(err) {
				t.Errorf("attempt %d left a file: %v\n%v", i, err, r.Lines(line))
			}
		}
		r.stop()
	})
}

func init() {
	scripts["respelled"] = func(l *life) error {
		addresses := [][2]string{
			{"tcp", "127.0.0.1:0"}, {"tcp", "127.0.0.1:0"}, {"tcp", ":0"}, {"tcp6", "[::]:0"}, {"udp", "127.0.0.1:0"},
			{"unix", l.dir + "/x"},
		}
		ports, _ := os.ReadFile(l.dir + "/ports")
		p := strings.Fields(string(ports))
		switch l.number {
		case 1, 3:
			addresses = [][2]string{
				{"udp", "localhost:" + p[4]}, {"unix", l.dir + "/./x"}, {"tcp", "localhost:" + p[1]}, {"tcp6", ":" + p[3]},
				{"tcp", "0.0.0.0:" + p[2]}, {"tcp", "localhost:" + p[0]},
			}
		case 2:
			addresses = [][2]string{
				{"tcp4", "127.0.0.1:" + p[0]}, {"tcp", "127.0.0.1:" + p[1]}, {"tcp", "[::]:" + p[2]},
				{"tcp6", "[::0]:" + p[3]}, {"udp", "127.0.0.1:" + p[4]}, {"unix", l.dir + "/../" + filepath.Base(l.dir) + "/x"},
			}
		}
		for _, where := range addresses {
			var c any
			var address net.Addr
			if where[0] == "udp" {
				packets, err := l.ListenPacket(l.ctx, where[0], where[1])
				if err != nil {
					return err
				}
				defer packets.Close()
				c, address = packets, packets.LocalAddr()
			} else {
				listener, err := l.Listen(l.ctx, where[0], where[1])
				if err != nil {
					return err
				}
				defer listener.Close()
				c, address = listener, listener.Addr()
			}
			n, err := inode(c)
			if err != nil {
				return err
			}
			l.say("has:", address, n)
			if _, port, err := net.SplitHostPort(address.String()); err == nil && l.number == 0 {
				ports = fmt.Appendln(ports, port)
			}
		}
		return os.WriteFile(l.dir+"/ports", ports, 0o600)
	}
}

// TestAddressesRespelled writes addresses in other ways: names, ports that the kernel has chosen, relative paths.
func TestAddressesRespelled(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
			t.Skip("no IPv6 here: ", err)
		} else {
			l.Close()
		}
		r := perform(t, "respelled", how)
		first := slices.Sorted(slices.Values(r.said(0, "has:")))
		for i := range 3 {
			line := r.replace(i + 1)
			if again := slices.Sorted(slices.Values(r.said(line, "has:"))); !slices.Equal(again, first) {
				t.Errorf("the sockets were\n%q\nand are\n%q", first, again)
			}
		}
		r.stop()
	})
}

func init() {
	scripts["group"] = func(l *life) error {
		config := &reuseport.Config{Exclusive: true}
		listeners, err := listenAll(l, "tcp", config.ListenGroup, l.ListenFunc)
		if err != nil {
			return err
		}
		packets, err := listenAll(l, "udp", config.ListenPacketGroup, l.ListenPacketFunc)
		if err != nil || !l.is("accepts") {
			return err
		}
		for i, listener := range listeners {
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					io.ReadFull(c, make([]byte, 1))
					fmt.Fprintln(c, i)
					c.Close()
				}
			}()
		}
		for i, c := range packets {
			go func() {
				for {
					_, from, err := c.ReadFrom(make([]byte, 10))
					if err != nil {
						return
					}
					c.WriteTo(fmt.Appendln(nil, i), from)
				}
			}()
		}
		return nil
	}
}

// opener opens a socket.
type opener[S any] = func(ctx context.Context, network, address string) (S, error)

// listenAll has each member of a group be handed on.
func listenAll[S any](
	l *life, network string, openGroup func(ctx context.Context, network, address string, n int) ([]S, error),
	listen func(ctx context.Context, network, address string, open opener[S]) (S, error),
) (all []S, err error) {
	const address = "127.0.0.1:0"
	group := sync.OnceValues(func() ([]S, error) { return openGroup(l.ctx, network, address, members) })
	for i := range members {
		s, err := listen(l.ctx, network, address, func(context.Context, string, string) (s S, err error) {
			opened, err := group()
			if err != nil {
				return s, err
			}
			return opened[i], nil
		})
		if err != nil {
			return nil, err
		}
		n, err := inode(s)
		if err != nil {
			return nil, err
		}
		var where net.Addr
		switch s := any(s).(type) {
		case net.Listener:
			where = s.Addr()
		case net.PacketConn:
			where = s.LocalAddr()
		}
		l.say("member:", i, where, n)
		all = append(all, s)
	}
	return all, nil
}

// members is how many sockets a group has.
const members = 4

// TestHandsOverGroup has a group with SO_REUSEPORT stay one of distinct sockets in their order, with what waits in the
// queue of each: nobody accepts, or reads, until there have been two more programs.
func TestHandsOverGroup(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "group", how)
		first := r.said(0, "member:")
		clients := map[string][]net.Conn{}
		for network, member := range map[string]string{"tcp": first[0], "udp": first[members]} {
			for range 20 {
				c, err := net.Dial(network, strings.Fields(member)[1])
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(program.Patience))
				if _, err := io.WriteString(c, "x"); err != nil {
					t.Fatal(err)
				}
				clients[network] = append(clients[network], c)
			}
		}
		sockets := map[string]bool{}
		for _, member := range first {
			sockets[strings.Fields(member)[2]] = true
		}
		if len(sockets) != 2*members {
			t.Errorf("there are sockets %q", first)
		}
		for i := range 3 {
			if i == 2 {
				r.set("accepts", true)
			}
			line := r.replace(i + 1)
			if again := r.said(line, "member:"); !slices.Equal(again, first) {
				t.Errorf("the sockets were\n%q\nand are\n%q", first, again)
			}
		}
		for network, all := range clients {
			answers := map[string]int{}
			for _, c := range all {
				text, err := bufio.NewReader(c).ReadString('\n')
				if err != nil {
					t.Fatal(network, err)
				}
				answers[text]++
			}
			if len(answers) < 2 { // the kernel spreads them by a hash
				t.Errorf("%s: members have answered: %v", network, answers)
			}
		}
		r.stop()
	})
}

func init() {
	scripts["twice"] = func(l *life) error {
		if l.number > 0 {
			for l.is("slow") {
				time.Sleep(time.Millisecond)
			}
			return nil
		}
		all := make(chan error)
		l.say("not ready:", l.Upgrade(l.ctx))
		go func() {
			for !l.is("go") {
				time.Sleep(time.Millisecond)
			}
			const calls = 3
			for range calls {
				go func() { all <- l.Upgrade(l.ctx) }()
			}
			for range calls {
				l.say("upgrade:", <-all)
			}
		}()
		return nil
	}
}

// TestOneUpgradeAtATime asks for several at once.
func TestOneUpgradeAtATime(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "twice", how, "slow")
		if got, want := r.said(0, "not ready:"), "Ready was not called"; len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("before Ready: %q, want %q", got, want)
		}
		r.set("go", true)
		for range 2 {
			if got := r.next("upgrade:"); got != "upgrade: "+upgrade.ErrInProgress.Error() {
				t.Errorf("one of several upgrades at once: %q", got)
			}
		}
		r.set("slow", false)
		r.Until("the successor is up", program.Patience, func() bool { return len(r.said(0, "up:")) == 2 })
		fmt.Sscan(r.said(0, "up:")[1], new(int), &r.pid)
		r.stop()
	})
}

func init() {
	scripts["started"] = func(l *life) error {
		stdin, err := io.ReadAll(io.LimitReader(os.Stdin, 10))
		l.say("args:", fmt.Sprintf("%q", os.Args[1:]), fmt.Sprintf("%q", upgrade.Environ()), string(stdin), err)
		return nil
	}
}

// TestStartedTheSame has successors get arguments and environment to the byte, and standard input, also one that was
// closed.
func TestStartedTheSame(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		for _, redirect := range []string{"", "<&- >&-"} {
			r := prepareServer(t, how)
			args := []string{"", " ", "a b", "-x=\n", "\xff", "'\"$HOME\"", "*", ""}
			script := `exec "$0" "$@" ` + redirect
			r.cmd.Args, r.cmd.Path = append([]string{"sh", "-c", script, r.cmd.Path}, args...), "/bin/sh"
			r.run(asScript+"=started "+r.dir, "ODD=a=b \xff\nc", "EMPTY=")
			first := r.said(0, "args:")
			if want := fmt.Sprintf("%q ", args); len(first) != 1 || !strings.HasPrefix(first[0], want) {
				t.Errorf("the arguments are %q, want %s", first, want)
			}
			for i := range 2 {
				line := r.replace(i + 1)
				if again := r.said(line, "args:"); !slices.Equal(again, first) {
					t.Errorf("it was started with\n%q\nand is with\n%q", first, again)
				}
			}
			r.stop()
		}
	})
}

func init() {
	scripts["pipes"] = func(l *life) error {
		for _, fileName := range l.FileNames() {
			f, err := l.File(fileName)
			if err != nil {
				return err
			}
			f.Close()
		}
		n, _ := os.ReadFile(l.dir + "/pipes")
		for i := range int(binary.BigEndian.Uint32(n)) {
			if l.number > 0 {
				break
			}
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			if err := l.AddFile(strconv.Itoa(i), r); err != nil {
				return err
			}
			r.Close()
			w.Close()
		}
		return nil
	}
}

// BenchmarkUpgrade replaces a server that has many files, from the signal to when its successor is ready.
func BenchmarkUpgrade(b *testing.B) {
	for _, how := range []string{"new process", "in place"} {
		for _, n := range []int{4, 400, 4000} {
			b.Run(fmt.Sprintf("%s/files=%d", how, n), func(b *testing.B) {
				var limit unix.Rlimit
				if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); limit.Cur < uint64(2*n+100) {
					b.Skipf("%d open files are allowed", limit.Cur)
				}
				r := prepareServer(b, how)
				if err := os.WriteFile(r.dir+"/pipes", binary.BigEndian.AppendUint32(nil, uint32(n)), 0o600); err != nil {
					b.Fatal(err)
				}
				r.run(asScript + "=pipes " + r.dir)
				i := 0
				for b.Loop() {
					i++
					r.replace(i)
				}
				b.StopTimer()
				r.stop()
			})
		}
	}
}

func init() {
	scripts["leaks"] = func(l *life) error {
		cmd := exec.Command("env")
		out, err := cmd.Output()
		if err != nil {
			return err
		}
		l.say("passes:", look(nil).Passed, strings.Contains(string(out), "GOPHERPACK"))
		f, err := l.File("pipe")
		if f == nil && err == nil {
			if f, _, err = os.Pipe(); err == nil {
				err = l.AddFile("pipe", f)
			}
		}
		if err != nil {
			return err
		}
		f.Close()
		listener, err := l.Listen(l.ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		listener.Close()
		l.say("passes:", look(nil).Passed, false)
		return nil
	}
}

// TestProgramsInheritNothing looks at what a program would get that a server or a successor starts.
func TestProgramsInheritNothing(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "leaks", how)
		for i := range 2 {
			r.replace(i + 1)
		}
		all := r.said(0, "passes:")
		for _, got := range all {
			if got != all[0] || strings.HasSuffix(got, "true") { // the test may have passed some on
				t.Errorf("programs get descriptors, or what was meant for the server: %q", all)
			}
		}
		r.stop()
	})
}

// oddNames are names of files, none of which is another's.
func oddNames() []string {
	return []string{"", " ", "  ", "\n", "\x00", "a", "A", "ä", "a\u0308", "listener", "tcp 127.0.0.1:0", "127.0.0.1:0",
		`"`, `\n`, "\ufffd", strings.Repeat("\x01", 4096)}
}

func init() {
	scripts["names"] = func(l *life) error {
		listener, err := l.Listen(l.ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		if got := l.FileNames(); l.number > 0 && !slices.Equal(got, slices.Sorted(slices.Values(oddNames()))) {
			return fmt.Errorf("the names are %q", got)
		}
		files, err := numbered(len(oddNames()))
		if err != nil {
			return err
		}
		for i, fileName := range oddNames() {
			if l.number == 0 {
				if err := errors.Join(l.AddFile(fileName, os.Stderr), l.AddFile(fileName, files[i])); err != nil {
					return err
				}
			}
			f, err := l.File(fileName)
			if err != nil {
				return err
			}
			text, err := io.ReadAll(io.NewSectionReader(f, 0, 10))
			if string(text) != strconv.Itoa(i) || err != nil {
				return fmt.Errorf("%q holds %q, %w", fileName, text, err)
			}
			f.Close()
			files[i].Close()
		}
		for _, fileName := range []string{"\xff", strings.Repeat("x", 4097)} {
			if err := l.AddFile(fileName, os.Stderr); err == nil {
				return fmt.Errorf("%.10q can be a name", fileName)
			}
		}
		return nil
	}
}

// TestNames has names of all kinds be handed on, and those be refused that cannot.
func TestNames(t *testing.T) {
	inBothWays(t, func(t *testing.T, how string) {
		r := perform(t, "names", how)
		r.replace(1)
		r.replace(2)
		r.stop()
	})
}
