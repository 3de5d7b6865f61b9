package steer

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/scoreboard"
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

// load loads the program, the one for this kernel. It is called with mu locked.
func (s *Steering) load() error {
	locked := rlimit.RemoveMemlock() // only before Linux 5.11 does it do anything
	err := s.loadPolicy(loadMigrate)
	if errors.Is(err, unix.EACCES) { // the verifier: before Linux 5.14 the program cannot ask whether a connection moves
		if err = s.loadPolicy(loadPlain); err == nil {
			s.kernel.old = true
		}
	}
	switch { // what the library says of EPERM is advice about itself
	case errors.Is(err, unix.EPERM) && locked != nil:
		return fmt.Errorf("it needs CAP_BPF, and before Linux 5.11 more RLIMIT_MEMLOCK: %w", unix.EPERM)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("it needs CAP_BPF: %w", unix.EPERM)
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
	b, err := scoreboard.Map(f, slots)
	if err != nil {
		return err
	}
	s.slots, s.taken = make([]*scoreboard.Slot, slots), make([]bool, slots)
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

// restore has the program know a worker's sockets again that were shut down, and listen now. If it cannot, the kernel's
// hash chooses where the program would have chosen them.
func (s *Steering) restore(id int) {
	for _, g := range s.groups {
		g.put(id, g.members[id])
	}
}

const bpfTCPListen = 10 // TCP_LISTEN

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
