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

// CPU is one logical CPU that is online, and where it sits in the machine.
type CPU struct {
	ID      int // the kernel's number
	Core    Set // the online CPUs of the same physical core, this one included: its hardware threads
	Package Set // the online CPUs of the same package (socket)
	Cache   Set // the online CPUs that share the last-level cache with it
	Node    int // the NUMA node; 0 where the kernel has no NUMA
}

// Topology is the CPUs of a machine that are online, in ascending order of ID. What the kernel does not tell,
// as in some virtual machines, counts as not shared: such a CPU is a core of its own, with a package and a
// cache of its own, on node 0.
type Topology []CPU

// ReadTopology reads the topology of this machine from /sys/devices/system. Where that is not mounted, as in some
// sandboxes, all that is known is the CPUs that this process may use. On an operating system other than Linux the
// error matches [errors.ErrUnsupported].
func ReadTopology() (Topology, error) {
	if !haveSysfs {
		return nil, fmt.Errorf("affinity: read topology: %w", errors.ErrUnsupported)
	}
	t, err := ReadTopologyFS(os.DirFS("/sys/devices/system"))
	if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	cpus, err := Allowed(0)
	if err != nil {
		return nil, err
	}
	for id := range cpus.All() {
		t = append(t, CPU{ID: id, Core: Of(id), Package: Of(id), Cache: Of(id)})
	}
	return t, nil
}

// ReadTopologyFS reads a topology from a copy of /sys/devices/system, such as a file tree taken from another
// machine.
func ReadTopologyFS(fsys fs.FS) (Topology, error) {
	t, err := readTopology(fsys)
	if err != nil {
		return nil, fmt.Errorf("affinity: read topology: %w", err)
	}
	return t, nil
}

func readTopology(fsys fs.FS) (Topology, error) {
	online, err := readSet(fsys, "cpu/online")
	if err != nil {
		return nil, err
	}
	node, err := readNodes(fsys)
	if err != nil {
		return nil, err
	}
	var t Topology
	for id := range online.All() {
		c := CPU{ID: id, Node: node[id]}
		dir := "cpu/cpu" + strconv.Itoa(id)
		// The kernel renamed these lists in 5.6 and keeps the old names beside the new.
		if c.Core, err = readShared(fsys, online, id, dir+"/topology/core_cpus_list", dir+"/topology/thread_siblings_list"); err != nil {
			return nil, err
		}
		if c.Package, err = readShared(fsys, online, id, dir+"/topology/package_cpus_list", dir+"/topology/core_siblings_list"); err != nil {
			return nil, err
		}
		if c.Cache, err = readLastLevel(fsys, online, id, dir+"/cache"); err != nil {
			return nil, err
		}
		t = append(t, c)
	}
	return t, nil
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

// Policy says how large a share of the machine one worker gets: what its threads may run on.
type Policy int

const (
	PerCPU   Policy = iota // one CPU, that is one hardware thread
	PerCore                // the hardware threads of one physical core
	PerCache               // the CPUs that share a last-level cache
	PerNode                // the CPUs of a NUMA node
)

var policyNames = []string{"cpu", "core", "cache", "node"}

// String returns "cpu", "core", "cache" or "node".
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
	t, err := ReadTopology()
	if err != nil {
		for cpu := range allowed.All() {
			t = append(t, CPU{ID: cpu, Core: Of(cpu), Package: Of(cpu), Cache: Of(cpu)})
		}
	}
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
	if allowed == (Set{}) {
		return nil, errors.New("the set of allowed CPUs is empty")
	}
	usable := t.CPUs().Intersect(allowed)
	if usable == (Set{}) {
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
