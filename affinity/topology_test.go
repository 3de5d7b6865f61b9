package affinity_test

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gopherpack/gopherpack/affinity"
)

//go:embed testdata/*.txt
var testdata embed.FS

// machine reads testdata/name.txt, one "path: content" a line, as a file tree.
func machine(t *testing.T, name string) fstest.MapFS {
	t.Helper()
	text, err := testdata.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{}
	for line := range strings.Lines(string(text)) {
		path, content, _ := strings.Cut(line, ": ")
		fsys[path] = &fstest.MapFile{Data: []byte(content)}
	}
	return fsys
}

// unnumbered is a CPU whose core and package have no numbers, as most of the captured machines' have none.
func unnumbered(c affinity.CPU) affinity.CPU {
	c.CoreID, c.PackageID = -1, -1
	return c
}

func TestTopology(t *testing.T) {
	tests := []struct {
		machine string
		cpus    string
		shares  [5]int // how many shares each policy gives: CPUs, cores, caches, nodes, packages
		probe   affinity.CPU
	}{
		{"xeon-2s16c32t", "0-31", [5]int{32, 16, 2, 2, 2},
			unnumbered(affinity.CPU{ID: 9, Core: affinity.Of(9, 25), Package: set("8-15,24-31"), Cache: set("8-15,24-31"), Node: 1})},
		{"kunpeng-2s128c", "0-127", [5]int{128, 128, 4, 4, 2},
			unnumbered(affinity.CPU{ID: 40, Core: affinity.Of(40), Package: set("0-63"), Cache: set("32-63"), Node: 1})},
		{"opteron-4s64c", "0-63", [5]int{64, 32, 8, 8, 4},
			unnumbered(affinity.CPU{ID: 63, Core: affinity.Of(62, 63), Package: set("48-63"), Cache: set("56-63"), Node: 7})},
		{"alderlake-laptop", "0-15", [5]int{16, 12, 1, 1, 1},
			unnumbered(affinity.CPU{ID: 9, Core: affinity.Of(9), Package: set("0-15"), Cache: set("0-15"), Kind: 1})},
		{"epyc-nps4", "0-31", [5]int{32, 16, 8, 4, 1},
			unnumbered(affinity.CPU{ID: 21, Core: affinity.Of(5, 21), Package: set("0-31"), Cache: set("4-5,20-21"), Node: 1})},
		{"firecracker-guest", "0-1", [5]int{2, 2, 1, 1, 1},
			affinity.CPU{ID: 1, Core: affinity.Of(1), Package: affinity.Of(0, 1), Cache: affinity.Of(0, 1), CoreID: 1}},
		{"vm-no-topology", "0-3", [5]int{4, 4, 4, 1, 4},
			unnumbered(affinity.CPU{ID: 2, Core: affinity.Of(2), Package: affinity.Of(2), Cache: affinity.Of(2)})},
	}
	for _, tt := range tests {
		t.Run(tt.machine, func(t *testing.T) {
			topo, err := affinity.ReadTopologyFS(machine(t, tt.machine))
			if err != nil {
				t.Fatal(err)
			}
			if got := topo.CPUs().String(); got != tt.cpus {
				t.Errorf("CPUs = %s, want %s", got, tt.cpus)
			}
			i := slices.IndexFunc(topo, func(c affinity.CPU) bool { return c.ID == tt.probe.ID })
			if topo[i] != tt.probe {
				t.Errorf("CPU %d = %+v, want %+v", tt.probe.ID, topo[i], tt.probe)
			}
			for policy, want := range tt.shares {
				policy := affinity.Policy(policy)
				shares, err := topo.Spread(topo.CPUs(), 0, policy)
				if err != nil || len(shares) != want {
					t.Errorf("%s: %d shares, %v; want %d", policy, len(shares), err, want)
				}
				var all affinity.Set
				total := 0
				for _, s := range shares {
					all, total = all.Union(s), total+s.Len()
				}
				if all != topo.CPUs() || total != all.Len() {
					t.Errorf("%s: the shares hold %d CPUs, together %q: not every CPU once", policy, total, all)
				}
			}
		})
	}
}

func TestSpread(t *testing.T) {
	tests := []struct {
		machine string
		allowed string
		n       int
		policy  affinity.Policy
		want    string // the sets, separated by spaces
	}{
		{"xeon-2s16c32t", "0-31", 3, affinity.PerCPU, "0 1 2"},
		{"xeon-2s16c32t", "0,1,16,17", 0, affinity.PerCPU, "0 1 16 17"},
		{"xeon-2s16c32t", "16,0,17", 0, affinity.PerCPU, "0 17 16"},
		{"xeon-2s16c32t", "0-3,16", 0, affinity.PerCore, "0,16 1 2 3"},
		{"xeon-2s16c32t", "6-9", 0, affinity.PerNode, "6-7 8-9"},
		{"opteron-4s64c", "8-23", 0, affinity.PerPackage, "8-15 16-23"},
		{"xeon-2s16c32t", "0-31", 3, affinity.PerCache, "0-7,16-23 8-15,24-31 0-7,16-23"},
		{"alderlake-laptop", "0-15", 0, affinity.PerCPU, "0 2 4 6 8 9 10 11 12 13 14 15 1 3 5 7"},
		{"alderlake-laptop", "0-15", 5, affinity.PerCore, "0-1 2-3 4-5 6-7 8"},
		{"epyc-nps4", "0-31", 4, affinity.PerCache, "0-1,16-17 2-3,18-19 4-5,20-21 6-7,22-23"},
		{"vm-no-topology", "1-2", 5, affinity.PerCPU, "1 2 1 2 1"},
		{"vm-no-topology", "3-900", 0, affinity.PerCPU, "3"}, // what is not online is left out
	}
	for _, tt := range tests {
		topo, err := affinity.ReadTopologyFS(machine(t, tt.machine))
		if err != nil {
			t.Fatal(err)
		}
		sets, err := topo.Spread(set(tt.allowed), tt.n, tt.policy)
		got := make([]string, len(sets))
		for i, s := range sets {
			got[i] = s.String()
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%s: Spread(%q, %d, %s) = %v, %v; want %s", tt.machine, tt.allowed, tt.n, tt.policy, got, err, tt.want)
		}
	}
}

func TestSpreadErrors(t *testing.T) {
	topo, err := affinity.ReadTopologyFS(machine(t, "vm-no-topology"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		allowed string
		n       int
		policy  affinity.Policy
		want    string
	}{
		{"0", -1, affinity.PerCPU, "negative"},
		{"", 1, affinity.PerCPU, "empty"},
		{"9", 1, affinity.PerCPU, `none of the CPUs "9" is online (online: "0-3")`},
		{"0", 1, affinity.Policy(17), "no such policy: 17"},
	} {
		if _, err := topo.Spread(set(tt.allowed), tt.n, tt.policy); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Spread(%q, %d, %s): %v; want an error about %q", tt.allowed, tt.n, tt.policy, err, tt.want)
		}
	}
}

func TestTopologyErrors(t *testing.T) {
	if _, err := affinity.ReadTopologyFS(fstest.MapFS{}); err == nil {
		t.Error("no cpu/online: no error")
	}
	broken := fstest.MapFS{"cpu/online": {Data: []byte("0-\n")}}
	if _, err := affinity.ReadTopologyFS(broken); err == nil || !strings.Contains(err.Error(), "cpu/online") {
		t.Errorf("broken cpu/online: %v; want the file named", err)
	}
}

func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // the kinds of CPUs 0 to 3
	}{
		{"alike", nil, "0 0 0 0"},
		{"capacities", map[string]string{
			"cpu/cpu0/cpu_capacity": "250\n", "cpu/cpu1/cpu_capacity": "250\n",
			"cpu/cpu2/cpu_capacity": "870\n", "cpu/cpu3/cpu_capacity": "1024\n",
		}, "2 2 1 0"},
		{"the same capacity", map[string]string{
			"cpu/cpu0/cpu_capacity": "1024\n", "cpu/cpu1/cpu_capacity": "1024\n",
			"cpu/cpu2/cpu_capacity": "1024\n", "cpu/cpu3/cpu_capacity": "1024\n",
		}, "0 0 0 0"},
		{"counters", map[string]string{"cpu_core/cpus": "0-1\n", "cpu_atom/cpus": "2-3\n"}, "0 0 1 1"},
		{"counters of three kinds", map[string]string{
			"cpu_core/cpus": "2", "cpu_atom/cpus": "0,1", "cpu_lowpower/cpus": "3",
		}, "1 1 0 2"},
		{"only efficiency cores", map[string]string{"cpu_atom/cpus": "0-3"}, "0 0 0 0"},
		{"counters before capacities", map[string]string{
			"cpu_core/cpus": "0-1\n", "cpu_atom/cpus": "2-3\n",
			"cpu/cpu0/cpu_capacity": "1024\n", "cpu/cpu1/cpu_capacity": "1009\n",
			"cpu/cpu2/cpu_capacity": "700\n", "cpu/cpu3/cpu_capacity": "700\n",
		}, "0 0 1 1"},
		{"garbage", map[string]string{"cpu_core/cpus": "x", "cpu/cpu0/cpu_capacity": "much"}, "0 0 0 0"},
	} {
		fsys := fstest.MapFS{"cpu/online": {Data: []byte("0-3\n")}}
		for name, text := range tt.files {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
		topo, err := affinity.ReadTopologyFS(fsys)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got []string
		for _, c := range topo {
			got = append(got, fmt.Sprint(c.Kind))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: kinds %v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestPolicyText(t *testing.T) {
	for p := affinity.PerCPU; p <= affinity.PerPackage; p++ {
		text, err := p.MarshalText()
		var back affinity.Policy
		if err != nil || back.UnmarshalText(text) != nil || back != p {
			t.Errorf("%d: text %q reads back as %d", p, text, back)
		}
	}
	var p affinity.Policy
	const known = "cpu, core, cache, node, package"
	if err := p.UnmarshalText([]byte("socket")); err == nil || !strings.Contains(err.Error(), known) {
		t.Errorf("unknown policy: %v; want the known ones named", err)
	}
	if _, err := affinity.Policy(9).MarshalText(); err == nil {
		t.Error("Policy(9) has a text")
	}
}

func FuzzTopology(f *testing.F) {
	f.Add("0-3", "0-1", "3", "0-3", "0")
	f.Fuzz(func(t *testing.T, online, core, level, shared, node string) {
		fsys := fstest.MapFS{"node/online": {Data: []byte(node)}, "node/node0/cpulist": {Data: []byte(online)}, "cpu/online": {Data: []byte(online)}}
		for i := range 4 {
			dir := fmt.Sprintf("cpu/cpu%d/", i)
			fsys[dir+"topology/core_cpus_list"] = &fstest.MapFile{Data: []byte(core)}
			fsys[dir+"cache/index3/level"] = &fstest.MapFile{Data: []byte(level)}
			fsys[dir+"cache/index3/shared_cpu_list"] = &fstest.MapFile{Data: []byte(shared)}
		}
		topo, err := affinity.ReadTopologyFS(fsys)
		if err != nil || len(topo) == 0 {
			return
		}
		for p := affinity.PerCPU; p <= affinity.PerPackage; p++ {
			shares, err := topo.Spread(topo.CPUs(), 0, p)
			var all affinity.Set
			for _, s := range shares {
				all = all.Union(s)
			}
			if err != nil || all != topo.CPUs() {
				t.Errorf("%s: shares %v, %v of CPUs %q", p, shares, err, topo.CPUs())
			}
		}
	})
}

func set(text string) affinity.Set {
	s, err := affinity.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}
