package affinity

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// CPU is one logical CPU that is online, and where it sits in the machine. The numbers of cores, packages and nodes are
// the kernel's, which need not be consecutive.
type CPU struct {
	ID      int // the kernel's number
	Core    Set // the online CPUs of the same physical core, this one included: its hardware threads
	Package Set // the online CPUs of the same package (socket)
	Cache   Set // the online CPUs that share the last-level cache with it
	Node    int // the NUMA node; 0 where the kernel has no NUMA

	CoreID    int // the number of the core, unique within its package only; -1 if the kernel does not tell
	PackageID int // the number of the package; -1 if the kernel does not tell

	// Kind is the kind of core, where a machine has several, as performance and efficiency cores: 0 is the most
	// capable, 1 the next. It is 0 where all are alike, and where the kernel does not tell.
	Kind int
}

// Topology is the CPUs of a machine that are online, in ascending order of ID. What the kernel does not tell,
// as in some virtual machines, counts as not shared: such a CPU is a core of its own, with a package and a
// cache of its own, on node 0.
type Topology []CPU

// ReadTopology reads the topology of this machine from /sys/devices/system. The CPUs that this process may use are in
// it also where /sys does not know of them, since some containers have a /sys of their own (lxcfs), and others none:
// what is not told of a CPU counts as not shared.
//
// If /sys cannot be read, the error says why, and the topology has the CPUs that this process may use, each as a core
// of its own. On an operating system other than Linux there is none; the error matches [errors.ErrUnsupported].
func ReadTopology() (Topology, error) {
	if !haveSysfs {
		return nil, fmt.Errorf("affinity: read topology: %w", errors.ErrUnsupported)
	}
	mask, _ := allowed(0) // where that is not to be known, /sys alone counts
	t, err := readTopology(os.DirFS(sysfs), os.DirFS("/sys/devices"), mask)
	if err != nil {
		return loneCores(mask), fmt.Errorf("affinity: read topology of %s: %w", sysfs, err)
	}
	return t, nil
}

const sysfs = "/sys/devices/system"

// loneCores returns a topology in which nothing is shared.
func loneCores(cpus Set) (t Topology) {
	for id := range cpus.All() {
		t = append(t, CPU{ID: id, Core: Of(id), Package: Of(id), Cache: Of(id), CoreID: -1, PackageID: -1})
	}
	return t
}

// ReadTopologyFS reads a topology from a copy of /sys/devices/system, such as a file tree taken from another
// machine. The directories cpu_core and cpu_atom of /sys/devices may stand beside, for the kinds of cores of some
// machines.
func ReadTopologyFS(fsys fs.FS) (Topology, error) {
	t, err := readTopology(fsys, fsys, Set{})
	if err != nil {
		return nil, fmt.Errorf("affinity: read topology: %w", err)
	}
	return t, nil
}

// readTopology reads /sys/devices/system, and what is in /sys/devices. The CPUs of mask are online whatever it says.
func readTopology(system, devices fs.FS, mask Set) (Topology, error) {
	online, err := readSet(system, "cpu/online")
	if err != nil && (mask.IsEmpty() || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	online = online.Union(mask)
	node, err := readNodes(system)
	if err != nil {
		return nil, err
	}
	var t Topology
	for id := range online.All() {
		c := CPU{ID: id, Node: node[id]}
		dir := "cpu/cpu" + strconv.Itoa(id)
		at := dir + "/topology/"
		// The kernel renamed these lists in 5.6 and keeps the old names beside the new.
		if c.Core, err = readShared(system, online, id, at+"core_cpus_list", at+"thread_siblings_list"); err != nil {
			return nil, err
		}
		if c.Package, err = readShared(system, online, id, at+"package_cpus_list", at+"core_siblings_list"); err != nil {
			return nil, err
		}
		if c.Cache, err = readLastLevel(system, online, id, dir+"/cache"); err != nil {
			return nil, err
		}
		c.CoreID, c.PackageID = readNumber(system, at+"core_id"), readNumber(system, at+"physical_package_id")
		t = append(t, c)
	}
	t.findKinds(system, devices)
	return t, nil
}

// findKinds tells kinds of cores by which counters of events they have, as Intel's, or by their capacity, which is told
// on arm64, riscv and such.
func (t Topology) findKinds(system, devices fs.FS) {
	rank := make([]int, len(t)) // the higher the more capable
	counters := false
	for less, name := range []string{"cpu_core", "cpu_atom", "cpu_lowpower"} {
		cpus, _ := readSet(devices, name+"/cpus")
		for i, c := range t {
			if cpus.Contains(c.ID) {
				rank[i], counters = -less, true
			}
		}
	}
	for i, c := range t {
		if !counters {
			rank[i] = readNumber(system, "cpu/cpu"+strconv.Itoa(c.ID)+"/cpu_capacity")
		}
	}
	ranks := slices.Compact(slices.Sorted(slices.Values(rank)))
	for i := range t {
		t[i].Kind = len(ranks) - 1 - slices.Index(ranks, rank[i])
	}
}

// readLastLevel returns who shares the highest-level cache that CPU id has.
func readLastLevel(fsys fs.FS, online Set, id int, dir string) (Set, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Set{}, err
	}
	last, file := 0, ""
	for _, e := range entries {
		text, err := fs.ReadFile(fsys, dir+"/"+e.Name()+"/level")
		if err != nil {
			continue // "uevent" and the like
		}
		if level, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && level > last {
			last, file = level, dir+"/"+e.Name()+"/shared_cpu_list"
		}
	}
	if file == "" {
		return Of(id), nil
	}
	return readShared(fsys, online, id, file)
}

// readShared reads the first of the files that exists, the CPUs that share something with CPU id.
func readShared(fsys fs.FS, online Set, id int, names ...string) (Set, error) {
	for _, name := range names {
		s, err := readSet(fsys, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return Set{}, err
		}
		return s.Intersect(online).Union(Of(id)), nil
	}
	return Of(id), nil
}

// readNodes returns the NUMA node of every CPU that has one.
func readNodes(fsys fs.FS) (map[int]int, error) {
	nodes, err := readSet(fsys, "node/online")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	of := map[int]int{}
	for n := range nodes.All() {
		cpus, err := readSet(fsys, "node/node"+strconv.Itoa(n)+"/cpulist")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for cpu := range cpus.All() {
			of[cpu] = n
		}
	}
	return of, nil
}

// readNumber returns the number in a file, and -1 if there is none.
func readNumber(fsys fs.FS, name string) int {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return -1
	}
	n, err := parseNumber(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return n
}

func readSet(fsys fs.FS, name string) (Set, error) {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return Set{}, err
	}
	s, err := Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return Set{}, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// CPUs returns the CPUs of the topology: those that are online.
func (t Topology) CPUs() Set {
	var s Set
	for _, c := range t {
		s.Add(c.ID)
	}
	return s
}

// Isolated returns the CPUs that the scheduler leaves alone since the boot parameter isolcpus= says so. The mask of a
// process has none of them unless somebody named them, and among several of them the kernel moves no thread: pin each
// thread to one.
func Isolated() (Set, error) { return readCPUs("isolated") }

// Offline returns the CPUs that are off, or could be added to this machine while it runs. They are in no [Topology].
func Offline() (Set, error) { return readCPUs("offline") }

// readCPUs reads one of the lists of CPUs that the kernel has for the whole machine.
func readCPUs(which string) (s Set, err error) {
	err = errors.ErrUnsupported
	if haveSysfs {
		s, err = readSet(os.DirFS(sysfs), "cpu/"+which)
	}
	if err != nil {
		return Set{}, fmt.Errorf("affinity: read %s CPUs of %s: %w", which, sysfs, err)
	}
	return s, nil
}

// Policy says how large a share of the machine one worker gets: what its threads may run on.
type Policy int

const (
	PerCPU     Policy = iota // one CPU, that is one hardware thread
	PerCore                  // the hardware threads of one physical core
	PerCache                 // the CPUs that share a last-level cache
	PerNode                  // the CPUs of a NUMA node
	PerPackage               // the CPUs of a package (socket)
)

var policyNames = []string{"cpu", "core", "cache", "node", "package"}

// String returns "cpu", "core", "cache", "node" or "package".
func (p Policy) String() string {
	if p < 0 || int(p) >= len(policyNames) {
		return "Policy(" + strconv.Itoa(int(p)) + ")"
	}
	return policyNames[p]
}

// MarshalText returns what String does, and an error if p is none of the constants.
func (p Policy) MarshalText() ([]byte, error) {
	if p < 0 || int(p) >= len(policyNames) {
		return nil, fmt.Errorf("affinity: no such policy: %d", int(p))
	}
	return []byte(p.String()), nil
}

// UnmarshalText accepts what String returns.
func (p *Policy) UnmarshalText(text []byte) error {
	i := slices.Index(policyNames, string(text))
	if i < 0 {
		return fmt.Errorf("affinity: unknown policy %.40q, want one of %s", text, strings.Join(policyNames, ", "))
	}
	*p = Policy(i)
	return nil
}

// Spread returns the CPUs that each of n workers gets: n sets, within what the calling thread may use. It is
// [Topology.Spread] for this machine and the mask of [Current]. Where /sys cannot be read, each CPU counts as
// a core of its own.
func Spread(n int, policy Policy) ([]Set, error) {
	allowed, err := Current()
	if err != nil {
		return nil, err
	}
	t, _ := ReadTopology()
	return t.Spread(allowed, n, policy)
}

// Spread returns the CPUs that each of n workers gets: n sets, none of which holds a CPU outside allowed.
//
// Each worker gets one share of the machine, of the size that policy names. With PerCPU the first workers get
// one CPU of every physical core, in ascending order, and only when all cores have a worker do their sibling
// threads follow. If n is greater than the number of shares, they are dealt out again from the first; n = 0
// means as many workers as there are shares. The error tells of a negative n, an unknown policy, or a set
// without an online CPU.
func (t Topology) Spread(allowed Set, n int, policy Policy) ([]Set, error) {
	if n < 0 {
		return nil, fmt.Errorf("affinity: spread: %d workers: the number is negative", n)
	}
	shares, err := t.shares(allowed, policy)
	if err != nil {
		return nil, fmt.Errorf("affinity: spread: %w", err)
	}
	if n == 0 {
		n = len(shares)
	}
	sets := make([]Set, n)
	for i := range sets {
		sets[i] = shares[i%len(shares)]
	}
	return sets, nil
}

// shares cuts the allowed CPUs into the shares that policy names, in the order in which workers get them.
func (t Topology) shares(allowed Set, policy Policy) ([]Set, error) {
	if allowed.IsEmpty() {
		return nil, errors.New("the set of allowed CPUs is empty")
	}
	usable := t.CPUs().Intersect(allowed)
	if usable.IsEmpty() {
		return nil, fmt.Errorf("none of the CPUs %q is online (online: %q)", allowed, t.CPUs())
	}
	if policy == PerCPU {
		return t.coresFirst(usable), nil
	}
	shared := func(c CPU) Set { return c.Core }
	switch policy {
	case PerCore:
	case PerCache:
		shared = func(c CPU) Set { return c.Cache }
	case PerNode:
		shared = t.node
	case PerPackage:
		shared = func(c CPU) Set { return c.Package }
	default:
		return nil, fmt.Errorf("no such policy: %d", int(policy))
	}
	var shares []Set
	rest := usable
	for _, c := range t {
		if rest.Contains(c.ID) {
			share := shared(c).Intersect(rest)
			shares = append(shares, share)
			rest = rest.Minus(share)
		}
	}
	return shares, nil
}

// coresFirst orders single CPUs by how many usable siblings come before them on their core, then by number.
func (t Topology) coresFirst(usable Set) []Set {
	type candidate struct{ thread, id int }
	var order []candidate
	for _, c := range t {
		if !usable.Contains(c.ID) {
			continue
		}
		thread := 0
		for sibling := range c.Core.Intersect(usable).All() {
			if sibling < c.ID {
				thread++
			}
		}
		order = append(order, candidate{thread, c.ID})
	}
	slices.SortFunc(order, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.thread, b.thread), cmp.Compare(a.id, b.id))
	})
	shares := make([]Set, len(order))
	for i, c := range order {
		shares[i] = Of(c.id)
	}
	return shares
}

// node returns the CPUs on the NUMA node of c.
func (t Topology) node(c CPU) Set {
	var s Set
	for _, other := range t {
		if other.Node == c.Node {
			s.Add(other.ID)
		}
	}
	return s
}
