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
