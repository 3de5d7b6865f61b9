package steer

import (
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRemoteClients has clients behind a network device whose receive queues are steered to some CPU (RPS), as from
// another machine: what counts is the CPU that receives, not the one that the client is on. Server and clients are in
// network namespaces of their own. In an emulated machine the clients are outside of it, behind a device that has
// several queues.
func TestRemoteClients(t *testing.T) {
	const address = "192.0.2.1"
	role, target, _ := strings.Cut(os.Getenv("STEER_TEST_QUEUES"), " ")
	switch role {
	case "client":
		for range 100 {
			c, err := net.Dial("tcp", target)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		return
	case "server":
		serveRemote(t, address, target)
		return
	case "device":
		serveDevice(t, target)
		return
	}
	if len(cpus(t)) < 2 {
		t.Skip("there is one CPU")
	}
	server, client := namespace(t, "server"), namespace(t, "client")
	run(t, "ip -n "+server+" link add vs numrxqueues 2 numtxqueues 2 type veth peer name vc netns "+client+" numrxqueues 2 numtxqueues 2")
	run(t, "ip -n "+server+" addr add "+address+"/24 dev vs")
	run(t, "ip -n "+client+" addr add 192.0.2.2/24 dev vc")
	run(t, "ip -n "+server+" link set vs up")
	run(t, "ip -n "+client+" link set vc up")
	out, err := again(t, server, "server "+client).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// namespace makes a network namespace for the test.
func namespace(t *testing.T, name string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root")
	}
	if err := exec.Command("ip", "netns", "list").Run(); err != nil {
		t.Skipf("ip-netns(8): %v", err) // busybox's ip has no such thing
	}
	ns := fmt.Sprintf("steer-%s-%d", name, os.Getpid())
	run(t, "ip netns add "+ns)
	t.Cleanup(func() { run(t, "ip netns del "+ns) })
	return ns
}

func run(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// again runs the test again in a network namespace, in some role.
func again(t *testing.T, ns, role string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", ns, exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "STEER_TEST_QUEUES="+role)
	return cmd
}

// serveRemote serves in this namespace, with clients in another: with the program, and where it is forbidden. Then
// classic BPF must do it, since the interface has a queue for each worker.
func serveRemote(t *testing.T, address, clients string) {
	n := cpus(t)[1] + 1
	without := New()
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with the goroutine, and the filter with it
		if err := forbidBPF(unix.ENOSYS); err != nil {
			t.Error(err)
		}
		started <- without.Start(onePerCPU(t, n))
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	defer without.Close()
	with := New(Require(), Epsilon(math.Inf(1)))
	if err := with.Start(onePerCPU(t, n)); err != nil {
		t.Fatal(err)
	}
	defer with.Close()
	for want, s := range map[Mode]*Steering{EBPF: with, ByCPU: without} {
		p := serve(t, s, address+":0", n)
		if mode, reason := s.Mode(); mode != want {
			t.Fatalf("%v, %v; want %v", mode, reason, want)
		}
		for _, receiver := range cpus(t)[:2] {
			receiveOn(t, receiver)
			for _, from := range cpus(t)[:2] {
				got := make([]int, n)
				onCPU(t, from, func() {
					if out, err := again(t, clients, "client "+p.address()).CombinedOutput(); err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
				})
				for range 100 {
					got[<-p.got]++
				}
				t.Logf("%s: received on CPU %d, from CPU %d: %v", want, receiver, from, got)
				if got[receiver] != 100 {
					t.Errorf("%s: received on CPU %d, from CPU %d: %v", want, receiver, from, got)
				}
			}
		}
	}
}

// receiveOn has a CPU do all of the receiving.
func receiveOn(t *testing.T, cpu int) {
	t.Helper()
	queues, err := filepath.Glob("/sys/class/net/vs/queues/rx-*/rps_cpus")
	if err != nil || len(queues) == 0 {
		t.Fatalf("%v, %v", queues, err)
	}
	for _, queue := range queues {
		if err := os.WriteFile(queue, fmt.Appendf(nil, "%x", 1<<cpu), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// The ports to which clients of a network device connect again and again.
const steeredPort, hashedPort = "7001", "7002"

// serveDevice serves with clients behind a network device that has a receive queue for each CPU, which puts every
// connection into one of them. The worker on that CPU must get it; by hash, some worker does.
func serveDevice(t *testing.T, address string) {
	const conns = 400
	n := len(cpus(t))
	serveOn := func(s *Steering, port string) (received []int, local int) {
		p := serve(t, s, address+":"+port, n)
		defer p.close()
		received = make([]int, n)
		enough := make(chan struct{})
		all := 0
		p.mu.Lock()
		p.accepted = func(id int, c net.Conn) {
			if all == conns {
				return
			}
			cpu := incomingCPU(t, c)
			received[cpu]++
			if cpu == id {
				local++
			}
			if all++; all == conns {
				close(enough)
			}
		}
		p.mu.Unlock()
		select {
		case <-enough:
		case <-time.After(time.Minute):
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Fatalf("port %s: %d connections within a minute", port, all)
		}
		return received, local
	}
	s := started(t, n, Epsilon(math.Inf(1)))
	received, local := serveOn(s, steeredPort)
	stats, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	hashed, byHash := serveOn(nil, hashedPort)
	t.Logf("steered: received on %v, of these %d by the worker there", received, local)
	t.Logf("by hash: received on %v, of these %d by the worker there", hashed, byHash)
	if slices.Min(received) == 0 || slices.Min(hashed) == 0 {
		t.Errorf("the device does not spread what it receives")
	}
	for _, w := range stats.Workers {
		if w.Balanced+w.Spilled+stats.Hashed != 0 {
			t.Errorf("others than the worker on the receiving CPU were chosen\n%v", stats)
			break
		}
	}
	// What the socket tells is which CPU received the last packet. The device may have moved the connection since the
	// first.
	if local < conns*95/100 {
		t.Errorf("%d of %d connections were accepted by the worker on the CPU that received them", local, conns)
	}
	if byHash > conns/2 {
		t.Errorf("by hash, %d of %d were, too", byHash, conns)
	}
}

// incomingCPU returns the CPU that received a connection.
func incomingCPU(t *testing.T, c net.Conn) (cpu int) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Error(err)
		return 0
	}
	raw.Control(func(fd uintptr) {
		if cpu, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_INCOMING_CPU); err != nil {
			t.Error(err)
		}
	})
	return cpu
}

// TestSynCookies has the kernel answer every SYN with a cookie, as in a flood: it asks the program twice for a
// connection then, for the SYN and for the ACK. What was counted too much must be forgotten, or the local worker would
// seem to be busy.
func TestSynCookies(t *testing.T) {
	if os.Getenv("STEER_TEST_QUEUES") != "cookies" {
		ns := namespace(t, "cookies")
		run(t, "ip -n "+ns+" link set lo up")
		if out, err := again(t, ns, "cookies").CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	s := started(t, 2)
	p := serve(t, s, "127.0.0.1:0", 2)
	// A client's FIN carries the cookie, too: the kernel makes one connection more of one that comes when all is over.
	// And a port that is in TIME_WAIT here gets no cookie. So the clients are reset, once they know that they are
	// connected.
	p.mu.Lock()
	p.greets = true
	p.accepted = func(_ int, c net.Conn) {
		c.Read(make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
	}
	p.mu.Unlock()
	local := cpus(t)[0]
	p.connect(local, 200)
	stats, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if w := stats.Workers; w[0].Local+w[0].Balanced+w[1].Local+w[1].Balanced < 400 {
		t.Errorf("200 connections were not chosen for twice\n%v", stats)
	}
	s.look(time.Now())
	if n := s.kernel.load(s, local); n != 0 {
		t.Errorf("worker %d seems to have %d connections", local, n)
	}
	for range 2 {
		if got := p.connect(local, 1); got[local] != 1 {
			t.Errorf("%v", got)
		}
	}
}

// load returns what the program takes a worker's load to be.
func (k *kernel) load(s *Steering, id int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, r := &k.workers[id], s.slots[s.workers[id].slot].Read()
	queued := int32(atomic.LoadUint32(&w.Chosen) - atomic.LoadUint32(&w.Lost) - r.Accepted)
	return int(r.Open) + int(max(0, queued))
}
