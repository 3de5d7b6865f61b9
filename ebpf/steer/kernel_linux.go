package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/board"
)

// kernel is what the program reads and writes, shared by the programs of all groups.
type kernel struct {
	old   bool      // the program is that for kernels before 5.14
	maps  plainMaps // but for sockets, which each group has of its own
	spec  *ebpf.CollectionSpec
	first *group    // the program that was loaded to see whether it can be; nil once it is a group's
	order []uint32  // the eligible ones
	rule  plainRule // of each CPU, but for local

	// Memory of maps. The program reads it at any time, so each field is stored at once.
	rules   []plainRule
	workers []plainWorker
	mapped  [][]byte
}

// group is the program of a group of sockets.
type group struct {
	objects struct {
		Program *ebpf.Program `ebpf:"choose_worker"`
		Sockets *ebpf.Map     `ebpf:"sockets"`
	}
	members []syscall.Conn
}

// load loads the program, the one for this kernel. It is called with mu locked.
func (s *Steering) load() error {
	locked := rlimit.RemoveMemlock() // only before Linux 5.11 does it do anything
	err := s.loadPolicy(loadMigrate)
	if errors.Is(err, unix.EACCES) { // the verifier: before Linux 5.14 the program cannot ask whether a connection moves
		if err = s.loadPolicy(loadPlain); err == nil {
			s.kernel.old = true
		}
	}
	switch {
	case errors.Is(err, unix.EPERM) && locked != nil:
		return fmt.Errorf("it needs CAP_BPF, and before Linux 5.11 more RLIMIT_MEMLOCK: %w", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("it needs CAP_BPF: %w", err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("this kernel has no bpf(2), or a filter of system calls hides it: %w", err)
	}
	return err
}

// loadPolicy loads the program that from returns.
func (s *Steering) loadPolicy(from func() (*ebpf.CollectionSpec, error)) error {
	spec, err := from()
	if err != nil {
		return err
	}
	n := uint32(len(s.workers))
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	slots := max(64, 8*n) // processes of several generations may be there at once
	for name, size := range map[string]uint32{
		plainMapSockets: n, plainMapRules: uint32(cpus), plainMapWorkers: n, plainMapEligible: n,
		plainMapReports: slots, plainMapCounts: (n + 1) * countKinds,
	} {
		spec.Maps[name].MaxEntries = size
	}
	if err := spec.Variables[plainVarNworkers].Set(n); err != nil {
		return err
	}
	k := &kernel{spec: spec}
	if err := spec.LoadAndAssign(&k.maps, nil); err != nil {
		return err
	}
	k.maps.Sockets.Close()
	k.maps.Sockets = nil
	if k.first, err = k.newGroup(nil); err != nil {
		k.close()
		return err
	}
	if k.rules, err = mapped[plainRule](k, k.maps.Rules, cpus); err == nil {
		k.workers, err = mapped[plainWorker](k, k.maps.Workers, int(n))
	}
	if err != nil {
		k.close()
		return err
	}
	k.mapCPUs(s.workers)
	if err := s.openBoard(k, int(slots)); err != nil {
		k.close()
		return err
	}
	s.kernel = k
	return s.tell()
}

// newGroup loads the program once more, with room for the sockets of a group, or with a map that has them.
func (k *kernel) newGroup(sockets *ebpf.Map) (*group, error) {
	m := &k.maps
	g := &group{}
	shared := map[string]*ebpf.Map{
		plainMapRules: m.Rules, plainMapWorkers: m.Workers, plainMapEligible: m.Eligible, plainMapReports: m.Reports,
		plainMapCounts: m.Counts,
	}
	if sockets != nil {
		shared[plainMapSockets] = sockets
	}
	err := k.spec.Copy().LoadAndAssign(&g.objects, &ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// mapped maps an array of n values into memory, until k is closed.
func mapped[T any](k *kernel, m *ebpf.Map, n int) ([]T, error) {
	var value T
	memory, err := unix.Mmap(m.FD(), 0, n*int(unsafe.Sizeof(value)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	k.mapped = append(k.mapped, memory)
	return unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), n), nil
}

// mapCPUs says which worker is the nearest to each CPU.
func (k *kernel) mapCPUs(workers []worker) {
	sets := make([]affinity.Set, len(workers))
	for i, w := range workers {
		sets[i] = w.cpus
	}
	topology, err := affinity.ReadTopology()
	if err != nil {
		topology = nil // then CPUs without a worker have no nearest one
	}
	for cpu, id := range nearest(topology, sets) {
		if cpu < len(k.rules) {
			atomic.StoreUint32(&k.rules[cpu].Local, uint32(id+1))
		}
	}
}

// openBoard maps what workers report.
func (s *Steering) openBoard(k *kernel, slots int) error {
	f, err := boardFile(k)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := board.Map(f, slots)
	if err != nil {
		return err
	}
	s.slots, s.taken = make([]*board.Slot, slots), make([]bool, slots)
	for i := range s.slots {
		if s.slots[i], err = b.Slot(i); err != nil {
			return err
		}
	}
	return nil
}

func boardFile(k *kernel) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(k.maps.Reports.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	return os.NewFile(uintptr(fd), "board"), nil
}

// attach has the program choose among the sockets of a group.
func (k *kernel) attach(sockets []syscall.Conn, inherited *os.File) (g *group, err error) {
	if g, err = k.inherit(inherited, len(sockets)); err != nil {
		return nil, err
	}
	if g == nil {
		g, k.first = k.first, nil
	}
	if g == nil {
		if g, err = k.newGroup(nil); err != nil {
			return nil, err
		}
	}
	g.members = sockets
	err = g.fill(0)
	busy := errors.Is(err, unix.EBUSY) // in another's map, whose program must go first
	if err == nil || busy {
		err = g.attach(sockets[0])
	}
	if busy && err == nil {
		err = g.fill(2 * time.Second)
	}
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// inherit makes a group of the map that another process has left, if it is one for as many sockets; else g is nil, and f is
// closed.
func (k *kernel) inherit(f *os.File, sockets int) (g *group, err error) {
	if f == nil {
		return nil, nil
	}
	var m *ebpf.Map
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := rc.Control(func(fd uintptr) {
		var own int
		if own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			m, err = ebpf.NewMapFromFD(own) // which closes it
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("what was inherited: %w", err)
	}
	defer m.Close() // the program's is a copy
	if m.Type() != ebpf.ReusePortSockArray || int(m.MaxEntries()) != sockets {
		return nil, f.Close() // while it is open no other map can have the sockets
	}
	return k.newGroup(m)
}

// file returns a copy of the map of the sockets.
func (g *group) file() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(g.objects.Sockets.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	return os.NewFile(uintptr(fd), "sockets"), nil
}

// holds reports whether a socket is in its place already.
func (g *group) holds(i, fd int) bool {
	var there uint64
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return err == nil && g.objects.Sockets.Lookup(uint32(i), &there) == nil && there == cookie
}

// fill puts the sockets into the map, and tries for some time if they are in another that is just going.
func (g *group) fill(patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for i, socket := range g.members {
		for {
			err := withDescriptor(socket, func(fd int) error {
				if g.holds(i, fd) {
					return nil
				}
				return g.objects.Sockets.Put(uint32(i), uint64(fd))
			})
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) || !time.Now().Before(deadline) {
				return fmt.Errorf("socket %d: %w", i, err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func (g *group) attach(member syscall.Conn) error {
	return withDescriptor(member, func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, g.objects.Program.FD())
		return os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_EBPF", err)
	})
}

func (g *group) close() error {
	return errors.Join(g.objects.Program.Close(), g.objects.Sockets.Close())
}

func (k *kernel) close() error {
	var err error
	if k.first != nil {
		err = k.first.close()
	}
	for _, memory := range k.mapped {
		err = errors.Join(err, unix.Munmap(memory))
	}
	return errors.Join(err, k.maps.Close())
}

// queued returns how many connections of the worker wait to be accepted, in all groups.
func (s *Steering) queued(id int) (n int) {
	for _, g := range s.groups {
		withDescriptor(g.members[id], func(fd int) error {
			if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.State == bpfTCPListen {
				n += int(info.Unacked) // of a listening socket it is the length of the accept queue
			}
			return nil
		})
	}
	return n
}

const bpfTCPListen = 10 // TCP_LISTEN

// sameGroup reports what the kernel would not tell: a socket of another group in the map is never chosen, without a word.
func sameGroup(sockets []syscall.Conn) error {
	var address netip.AddrPort
	for i, socket := range sockets {
		err := withDescriptor(socket, func(fd int) error {
			name, err := unix.Getsockname(fd)
			if err != nil {
				return os.NewSyscallError("getsockname", err)
			}
			at, ok := addrPort(name)
			switch {
			case !ok:
				return errors.New("it is neither IPv4 nor IPv6")
			case i > 0 && at != address:
				return fmt.Errorf("it is on %v, not on %v as the first", at, address)
			}
			address = at
			if shared, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || shared == 0 {
				return errors.New("it was bound without SO_REUSEPORT")
			}
			kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
			listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
			if kind == unix.SOCK_STREAM && listens == 0 {
				return errors.New("it does not listen")
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("socket %d: %w", i, err)
		}
	}
	return nil
}

func addrPort(name unix.Sockaddr) (netip.AddrPort, bool) {
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), true
	}
	return netip.AddrPort{}, false
}

// withDescriptor calls f with the descriptor of a connection, which stays open meanwhile.
func withDescriptor(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) })
	if cerr != nil {
		return cerr
	}
	return err
}

// What is counted, as in policy.c, where the states of workers that were passed over are counted by their numbers.
const (
	countLocal    = 6
	countBalanced = 7
	countKinds    = 8
)

// count reads the counters of a worker.
func (k *kernel) count(id int, stats *WorkerStats) error {
	stats.ByCPU = map[int]uint64{}
	for kind, sum := range map[int]*uint64{
		countLocal: &stats.Local, countBalanced: &stats.Balanced,
		int(Up): &stats.Spilled, int(Draining): &stats.Draining, int(Dead): &stats.Dead, int(Absent): &stats.Dead, int(Hung): &stats.Hung,
	} {
		var cpus []uint64
		if err := k.maps.Counts.Lookup(uint32(id*countKinds+kind), &cpus); err != nil {
			return err
		}
		for cpu, n := range cpus {
			*sum += n
			if n > 0 && kind >= countLocal {
				stats.ByCPU[cpu] += n
			}
		}
	}
	return nil
}
