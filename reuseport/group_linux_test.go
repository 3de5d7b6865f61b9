package reuseport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/reuseport"
)

// openGroup opens a group that is closed when the test ends.
func openGroup(t *testing.T, c *reuseport.Config, network, address string, n int) []net.Listener {
	t.Helper()
	group, err := c.ListenGroup(t.Context(), network, address, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range group {
			l.Close()
		}
	})
	return group
}

// connectAndCount opens conns connections to a group, one after the other, and returns how many each member got
// and how many of them the kernel says the CPU of the member's place received.
func connectAndCount(t *testing.T, group []net.Listener, conns int) (got, local []int) {
	t.Helper()
	type accepted struct{ member, cpu int }
	arrived := make(chan accepted)
	for i, l := range group {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				cpu, err := reuseport.IncomingCPU(c.(syscall.Conn))
				if err != nil {
					t.Error(err)
				}
				c.Close()
				arrived <- accepted{i, cpu}
			}
		}()
	}
	got, local = make([]int, len(group)), make([]int, len(group))
	for range conns {
		c, err := net.Dial(group[0].Addr().Network(), group[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		a := <-arrived
		c.Close()
		got[a.member]++
		if a.cpu == a.member {
			local[a.member]++
		}
	}
	for _, l := range group { // let the goroutines go
		l.Close()
	}
	return got, local
}

func TestGroupSharesOnePort(t *testing.T) {
	for _, tt := range []struct{ network, address string }{
		{"tcp", "localhost:0"}, {"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"tcp", ":0"}, {"tcp", "0.0.0.0:0"},
	} {
		for _, exclusive := range []bool{false, true} {
			group, err := (&reuseport.Config{Exclusive: exclusive}).ListenGroup(t.Context(), tt.network, tt.address, 5)
			if err != nil {
				t.Errorf("%s %s: %v", tt.network, tt.address, err)
				continue
			}
			for _, l := range group {
				if l.Addr().String() != group[0].Addr().String() {
					t.Errorf("%s %s: members on %s and %s", tt.network, tt.address, l.Addr(), group[0].Addr())
				}
				l.Close()
			}
		}
	}
}

func TestEveryMemberGetsConnections(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		group := openGroup(t, &reuseport.Config{Exclusive: exclusive}, "tcp", "localhost:0", 3)
		got, _ := connectAndCount(t, group, 300)
		for i, n := range got {
			if n < 50 { // the expectation is 100; a fair hash gives less than 50 once in 10^9 runs
				t.Errorf("exclusive %v: member %d of 3 got %d of 300 connections", exclusive, i, n)
			}
		}
	}
}

func TestGroupIsAllOrNone(t *testing.T) {
	oops := errors.New("oops")
	var opened atomic.Int32
	var address string
	c := &reuseport.Config{Control: func(_, a string, _ syscall.RawConn) error {
		address = a
		if opened.Add(1) == 3 {
			return oops
		}
		return nil
	}}
	group, err := c.ListenGroup(t.Context(), "tcp4", "127.0.0.1:0", 4)
	if !errors.Is(err, oops) || group != nil {
		t.Fatalf("%v, %v; want no group and the error of the third member", group, err)
	}
	if conn, err := net.Dial("tcp4", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial %s: %v, %v; want it refused", address, conn, err)
	}
}

func TestExclusive(t *testing.T) {
	ctx := t.Context()
	plain, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	sharing := openGroup(t, &reuseport.Config{}, "tcp", "localhost:0", 2)
	exclusive := openGroup(t, &reuseport.Config{Exclusive: true}, "tcp", "localhost:0", 2)
	wild := openGroup(t, &reuseport.Config{Exclusive: true}, "tcp", ":0", 1)
	_, wildPort, _ := net.SplitHostPort(wild[0].Addr().String())
	for _, address := range []string{
		plain.Addr().String(), sharing[0].Addr().String(), exclusive[0].Addr().String(), "127.0.0.1:" + wildPort,
	} {
		group, err := (&reuseport.Config{Exclusive: true}).ListenGroup(ctx, "tcp", address, 2)
		if !errors.Is(err, syscall.EADDRINUSE) || group != nil {
			t.Errorf("exclusive on %s, which is in use: %v, %v; want EADDRINUSE", address, group, err)
		}
	}
	// Who does not ask to be exclusive joins, as the kernel allows.
	if joined, err := reuseport.Listen(ctx, "tcp", sharing[0].Addr().String()); err != nil {
		t.Errorf("joining without asking: %v", err)
	} else {
		joined.Close()
	}
}

func TestExclusivePacket(t *testing.T) {
	c := &reuseport.Config{Exclusive: true}
	group, err := c.ListenPacketGroup(t.Context(), "udp", "127.0.0.1:0", 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range group {
		defer p.Close()
	}
	if again, err := c.ListenPacketGroup(t.Context(), "udp", group[0].LocalAddr().String(), 3); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v, %v; want EADDRINUSE", again, err)
	}
}

func TestNoMultipathTCP(t *testing.T) {
	l := openGroup(t, &reuseport.Config{}, "tcp", "localhost:0", 1)[0]
	rc, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) {
		if proto, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || proto != unix.IPPROTO_TCP {
			t.Errorf("protocol %d, %v; want %d", proto, err, unix.IPPROTO_TCP)
		}
	})
}

// onEveryCPU calls f pinned to each CPU that this process may use.
func onEveryCPU(t *testing.T, f func(cpu int)) {
	t.Helper()
	allowed, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	for cpu := range allowed.All() {
		undo, err := affinity.Pin(affinity.Of(cpu))
		if err != nil {
			t.Fatal(err)
		}
		f(cpu)
		if err := undo(); err != nil {
			t.Fatal(err)
		}
	}
}

// members maps CPU i to member i, and says how many members that takes.
func members(t *testing.T) (table map[int]int, n int) {
	t.Helper()
	allowed, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	table = map[int]int{}
	for cpu := range allowed.All() {
		table[cpu], n = cpu, max(n, cpu+1)
	}
	return table, n
}

// takesPrograms skips a test where sockets take no program, as in an emulator of processors (qemu-aarch64).
func takesPrograms(t *testing.T) {
	t.Helper()
	group := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", 1)
	if err := reuseport.Limit(group[0], 1); errors.Is(err, unix.ENOPROTOOPT) {
		t.Skip(err)
	}
}

func TestAttachCPU(t *testing.T) {
	takesPrograms(t)
	table, n := members(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, exclusive := range []bool{false, true} {
			onEveryCPU(t, func(cpu int) {
				group := openGroup(t, &reuseport.Config{Exclusive: exclusive}, "tcp", address, n)
				if err := reuseport.AttachCPU(group[0].(syscall.Conn), table); err != nil {
					t.Fatal(err)
				}
				const conns = 50
				got, local := connectAndCount(t, group, conns)
				if got[cpu] != conns || local[cpu] != conns {
					t.Errorf("%s: %d connections from CPU %d went to %v, on their own CPU %v", address, conns, cpu, got, local)
				}
			})
		}
	}
}

// TestLimit keeps connections from some members, and lets them come again.
func TestLimit(t *testing.T) {
	takesPrograms(t)
	const n, conns = 4, 200
	for _, limit := range []int{1, 2, n} {
		group := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", n)
		if err := reuseport.Limit(group[n-1].(syscall.Conn), limit); err != nil {
			t.Fatal(err)
		}
		got, _ := connectAndCount(t, group, conns)
		for i, k := range got {
			if chosen := k > 0; chosen != (i < limit) {
				t.Errorf("limited to %d members, %d connections went to %v", limit, conns, got)
			}
		}
	}
	group := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", n)
	if err := reuseport.Limit(group[0].(syscall.Conn), 0); err == nil {
		t.Error("limited to no member at all: no error")
	}
	if err := reuseport.Limit(group[0].(syscall.Conn), 1); err != nil {
		t.Fatal(err)
	}
	if err := reuseport.Detach(group[0].(syscall.Conn)); err != nil {
		t.Fatal(err)
	}
	if got, _ := connectAndCount(t, group, conns); slices.Contains(got, 0) {
		t.Errorf("without a limit, %d connections went to %v", conns, got)
	}
}

// TestCloseAfterLimit closes members under load, the last first: nobody is reset.
func TestCloseAfterLimit(t *testing.T) {
	takesPrograms(t)
	const n = 4
	// On IPv4 the kernel may reset one as it takes a socket out of the group (README, Limits).
	address := "[::1]:0"
	if l, err := net.Listen("tcp", address); err != nil {
		address = "127.0.0.1:0" // there is no IPv6 here
	} else {
		l.Close()
	}
	group := openGroup(t, &reuseport.Config{}, "tcp", address, n)
	var accepting sync.WaitGroup
	for _, l := range group {
		accepting.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "x")
				c.Close()
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", group[0].Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				if answer, err := io.ReadAll(c); string(answer) != "x" || err != nil {
					t.Errorf("%q, %v", answer, err)
				}
				c.Close()
			}
		})
	}
	for left := n - 1; left > 0; left-- {
		if err := reuseport.Limit(group[0].(syscall.Conn), left); err != nil {
			t.Fatal(err)
		}
		emptied(t, group[left])
		group[left].Close()
	}
	cancel()
	clients.Wait()
	group[0].Close()
	accepting.Wait()
}

// emptied waits until nothing has been in the queue of a listener for a while, however late those run that serve it.
func emptied(t *testing.T, l net.Listener) {
	t.Helper()
	rc, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for looks := 0; looks < 20; looks++ {
		time.Sleep(5 * time.Millisecond)
		rc.Control(func(fd uintptr) {
			if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n != 0 {
				looks = 0
			}
		})
	}
}

func TestAttachCPUPacket(t *testing.T) {
	takesPrograms(t)
	table, n := members(t)
	group, err := reuseport.ListenPacketGroup(t.Context(), "udp", "127.0.0.1:0", n)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range group {
		defer p.Close()
	}
	if err := reuseport.AttachCPU(group[0].(syscall.Conn), table); err != nil {
		t.Fatal(err)
	}
	onEveryCPU(t, func(cpu int) {
		c, err := net.Dial("udp", group[0].LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 20 {
			fmt.Fprint(c, i)
			buf := make([]byte, 10)
			if nr, _, err := group[cpu].ReadFrom(buf); err != nil || string(buf[:nr]) != fmt.Sprint(i) {
				t.Fatalf("datagram %d from CPU %d: %q, %v", i, cpu, buf[:nr], err)
			}
		}
	})
}

func TestDetach(t *testing.T) {
	takesPrograms(t)
	group := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", 2)
	first := group[0].(syscall.Conn)
	if err := reuseport.Detach(first); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("nothing attached: %v, want ENOENT", err)
	}
	nowhere := map[int]int{}
	for cpu := range 512 {
		nowhere[cpu] = 1 // all to member 1
	}
	if err := reuseport.AttachCPU(first, nowhere); err != nil {
		t.Fatal(err)
	}
	if err := reuseport.Detach(group[1].(syscall.Conn)); err != nil { // any member will do
		t.Fatal(err)
	}
	if got, _ := connectAndCount(t, group, 100); got[0] == 0 {
		t.Errorf("after Detach the members got %v", got)
	}
}

// TestAttachCPUFull attaches the longest program that the kernel takes, and a longer one.
func TestAttachCPUFull(t *testing.T) {
	takesPrograms(t)
	group := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", 1)
	table := map[int]int{}
	for cpu := range 2047 {
		table[cpu] = 0
	}
	if err := reuseport.AttachCPU(group[0], table); err != nil && !errors.Is(err, unix.ENOMEM) { // net.core.optmem_max
		t.Error(err)
	}
	table[2047] = 0
	if err := reuseport.AttachCPU(group[0], table); err == nil || !strings.Contains(err.Error(), "at most 2047") {
		t.Errorf("a longer program: %v", err)
	}
}

func TestAttachCPUErrors(t *testing.T) {
	l, err := net.Listen("tcp", "localhost:0") // Multipath TCP, where the kernel has it, and no group
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, table := range []map[int]int{nil, {-1: 0}, {0: -1}, {0: 0}} {
		if err := reuseport.AttachCPU(l.(syscall.Conn), table); err == nil {
			t.Errorf("AttachCPU(%v) to a socket without a group: no error", table)
		}
	}
}

// TestQuiesce keeps what is queued, ignores who comes later, and refuses once the listener is closed.
func TestQuiesce(t *testing.T) {
	l := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", 1)[0]
	const queued = 5
	for range queued {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "x")
	}
	err := reuseport.Quiesce(l.(syscall.Conn))
	if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c, err := net.DialTimeout("tcp", l.Addr().String(), 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("a connection after Quiesce was accepted")
	}
	for range queued {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("a queued connection: read %d bytes, %v", n, err)
		}
		c.Close()
	}
	l.Close()
	if _, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after Close: %v, want it refused", err)
	}
}

// TestResume lets connections in again that Quiesce kept out, also by another descriptor of the socket.
func TestResume(t *testing.T) {
	takesPrograms(t)
	l := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", 1)[0]
	if err := reuseport.Resume(l.(syscall.Conn)); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("nothing to undo: %v, want ENOENT", err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		err := reuseport.Quiesce(l.(syscall.Conn))
		if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if c, err := net.DialTimeout("tcp", l.Addr().String(), 50*time.Millisecond); err == nil {
			c.Close()
			t.Error("a connection after Quiesce was accepted")
		}
		if err := reuseport.Resume(f); err != nil {
			t.Fatal(err)
		}
		c, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
		if err != nil {
			t.Fatalf("after Resume: %v", err)
		}
		c.Close()
	}
	l.Close()
	if err := reuseport.Resume(l.(syscall.Conn)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed listener: %v", err)
	}
}

// TestResumeLocked cannot undo a filter that a process has locked.
func TestResumeLocked(t *testing.T) {
	l := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", 1)[0].(syscall.Conn)
	if err := reuseport.Quiesce(l); err != nil {
		t.Skip(err)
	}
	rc, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1) })
	if err != nil {
		t.Fatal(err)
	}
	if err := reuseport.Resume(l); !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v; want that it is not permitted", err)
	}
}

// TestUnprivileged runs the other tests as nobody, without any capability.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests are unprivileged already")
	}
	exe, err := os.ReadFile("/proc/self/exe") // nobody cannot reach go test's own folder
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "reuseport")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/test", exe, 0o755)); err != nil {
		t.Fatal(err)
	}
	const tests = "^Test(AttachCPU|Detach|EveryMember|Exclusive|GroupOfOne|Resume|Dial|Ports|Config|ListenConfig)"
	cmd := exec.Command(dir+"/test", "-test.run="+tests, "-test.v")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as uid 65534: %v\n%s", err, out)
	}
}

// TestGroupOfOne opens groups of one member, which must be groups: they can be given programs, and others can join.
func TestGroupOfOne(t *testing.T) {
	takesPrograms(t)
	for _, exclusive := range []bool{false, true} {
		for network, host := range map[string]string{"tcp": "", "tcp4": "127.0.0.1", "tcp6": "[::1]", "udp": "", "udp4": "127.0.0.1", "udp6": "[::1]"} {
			c := &reuseport.Config{Exclusive: exclusive}
			conn, address, join := alone(t, c, network, host+":0")
			if err := reuseport.Detach(conn); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("%s, exclusive %v: it has a program of ours: %v", network, exclusive, err)
			}
			if err := reuseport.Limit(conn, 1); err != nil {
				t.Errorf("%s, exclusive %v: %v", network, exclusive, err)
			}
			if err := join(address); err != nil {
				t.Errorf("%s, exclusive %v: join: %v", network, exclusive, err)
			}
			if err := reuseport.Detach(conn); err != nil {
				t.Errorf("%s, exclusive %v: %v", network, exclusive, err)
			}
		}
	}
}

// alone opens a group of one, and returns how to join it.
func alone(t *testing.T, c *reuseport.Config, network, free string) (conn syscall.Conn, address string, join func(address string) error) {
	t.Helper()
	if network[:3] == "tcp" {
		l := openGroup(t, c, network, free, 1)[0]
		return l.(syscall.Conn), l.Addr().String(), func(address string) error {
			l, err := reuseport.Listen(t.Context(), network, address)
			if err == nil {
				l.Close()
			}
			return err
		}
	}
	group, err := c.ListenPacketGroup(t.Context(), network, free, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { group[0].Close() })
	return group[0].(syscall.Conn), group[0].LocalAddr().String(), func(address string) error {
		p, err := reuseport.ListenPacket(t.Context(), network, address)
		if err == nil {
			p.Close()
		}
		return err
	}
}

// TestAttachFlows has senders keep their members, but those of members that are absent, which come back to them.
func TestAttachFlows(t *testing.T) {
	takesPrograms(t)
	const n, senders = 5, 200
	for network, host := range map[string]string{"udp4": "127.0.0.1", "udp6": "[::1]"} {
		group, err := reuseport.ListenPacketGroup(t.Context(), network, host+":0", n)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range group {
			defer p.Close()
		}
		var all []net.Conn
		for range senders {
			c, err := net.Dial(network, group[0].LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			all = append(all, c)
		}
		// chosen returns which member gets what each sender sends.
		chosen := func(seed uint32, n int, absent ...int) []int {
			t.Helper()
			if err := reuseport.AttachFlows(group[n-1], seed, n, absent...); err != nil {
				t.Fatal(err)
			}
			members := make([]int, senders)
			for k, c := range all {
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				members[k] = whoGets(t, group)
			}
			return members
		}
		first := chosen(1, n)
		for i := range n {
			if got := count(first, i); got < senders/n/3 || got > senders*2/n {
				t.Errorf("%s: member %d has %d of %d senders", network, i, got, senders)
			}
		}
		for _, absent := range [][]int{{1}, {0, 4}, {0, 1, 2, 3}, {2, 9, -1}} {
			now, moved := chosen(1, n, absent...), make([]int, n)
			for k, i := range now {
				if !slices.Contains(absent, first[k]) && i != first[k] || slices.Contains(absent, i) || i < 0 {
					t.Fatalf("%s: without %v, what went to member %d goes to %d", network, absent, first[k], i)
				}
				if i != first[k] {
					moved[i]++
				}
			}
			if len(absent) == 1 && slices.Max(moved) > 3*senders/n/(n-1) {
				t.Errorf("%s: without %v its senders are spread as %v", network, absent, moved)
			}
		}
		if again := chosen(1, n); !slices.Equal(again, first) {
			t.Errorf("%s: with all there, the senders have other members than before", network)
		}
		if other := chosen(2, n); slices.Equal(other, first) {
			t.Errorf("%s: another seed changes nothing", network)
		}
		if fewer := chosen(1, n-2); slices.Max(fewer) != n-3 || slices.Min(fewer) < 0 {
			t.Errorf("%s: of %d members, those chosen are up to %d", network, n-2, slices.Max(fewer))
		}
		// A socket that is quiet keeps what is queued.
		chosen(1, 1)
		p := group[0].(*net.UDPConn)
		all[0].Write([]byte("before"))
		awaitQueued(t, p)
		if err := reuseport.Quiesce(p); err != nil {
			t.Fatal(err)
		}
		all[0].Write([]byte("dropped"))
		all[1].Write([]byte("dropped"))
		if text := queued(t, p); text != "before" {
			t.Errorf("%s: a quiet socket has %q", network, text)
		}
		if text := receive(p, 10*time.Millisecond); text != "" {
			t.Errorf("%s: a quiet socket got %q", network, text)
		}
		if err := reuseport.Resume(p); err != nil {
			t.Fatal(err)
		}
		all[0].Write([]byte("again"))
		if text := receive(p, time.Minute); text != "again" {
			t.Errorf("%s: a socket that is not quiet any more got %q", network, text)
		}
	}
	tcp := openGroup(t, &reuseport.Config{}, "tcp", "127.0.0.1:0", 3)
	if err := reuseport.AttachFlows(tcp[0], 7, 3, 1); err != nil {
		t.Fatal(err)
	}
	if got, _ := connectAndCount(t, tcp, 60); got[1] != 0 || got[0] < 10 || got[2] < 10 {
		t.Errorf("connections went to %v", got)
	}
	for _, bad := range []struct {
		n      int
		absent []int
	}{{0, nil}, {-1, nil}, {2, []int{0, 1}}, {1 << 20, nil}} {
		if err := reuseport.AttachFlows(tcp[0], 7, bad.n, bad.absent...); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

// whoGets waits for a datagram, and returns which member of a group gets it. The kernel may be late with it.
func whoGets(t *testing.T, group []net.PacketConn) int {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); runtime.Gosched() {
		for i, p := range group {
			if queued(t, p.(*net.UDPConn)) != "" {
				return i
			}
		}
	}
	t.Fatal("no member got the datagram")
	return -1
}

// awaitQueued waits until something is queued.
func awaitQueued(t *testing.T, p *net.UDPConn) {
	t.Helper()
	p.SetReadDeadline(time.Now().Add(time.Minute))
	rc, err := p.SyscallConn()
	if err == nil {
		one := make([]byte, 1)
		err = rc.Read(func(fd uintptr) bool {
			_, _, err := unix.Recvfrom(int(fd), one, unix.MSG_DONTWAIT|unix.MSG_PEEK)
			return err == nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func count(all []int, what int) (n int) {
	for _, v := range all {
		if v == what {
			n++
		}
	}
	return n
}
