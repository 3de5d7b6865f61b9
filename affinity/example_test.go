package affinity_test

import (
	"fmt"
	"os/exec"
	"testing/fstest"

	"github.com/gopherpack/gopherpack/affinity"
)

// Start a program that may run on CPU 0 alone, whatever threads it makes.
func ExampleDo() {
	cmd := exec.Command("nproc")
	if err := affinity.Do(affinity.Of(0), cmd.Start); err != nil {
		fmt.Println(err)
		return
	}
	if err := cmd.Wait(); err != nil {
		fmt.Println(err)
	}
}

// Measure on one CPU.
func ExamplePin() {
	undo, err := affinity.Pin(affinity.Of(0))
	if err != nil {
		fmt.Println(err)
		return
	}
	// What this goroutine does here runs on CPU 0, and nothing else of this program on its thread.
	if err := undo(); err != nil {
		fmt.Println(err)
	}
}

// Move a program that already runs, as taskset -ap 0-3 does.
func ExampleProcess() {
	cpus, err := affinity.Parse("0-3")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := affinity.Process(4711, cpus); err != nil {
		fmt.Println(err)
	}
}

// Show where the threads of a program may run, as taskset -ap does, and where they did last.
func ExampleThreads() {
	threads, err := affinity.Threads(0) // of this process
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range threads {
		fmt.Printf("%6d %-15s may run on %s, ran on %d\n", t.ID, t.Name, t.Mask, t.LastCPU)
	}
}

// How many CPUs there are for this program, and which.
func ExampleCurrent() {
	cpus, err := affinity.Current()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d CPUs: %s, as a mask %s\n", cpus.Len(), cpus, cpus.Mask())
}

// Run one worker per socket, on whatever CPUs the container leaves.
func ExampleSpread() {
	shares, err := affinity.Spread(0, affinity.PerPackage)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, cpus := range shares {
		fmt.Printf("worker %d on CPUs %s\n", i, cpus)
	}
}

// Show the machine, as lscpu -e does.
func ExampleReadTopology() {
	topology, err := affinity.ReadTopology()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range topology {
		fmt.Printf("CPU %d: node %d, socket %d, core %d, kind %d, shares its core with %s\n",
			c.ID, c.Node, c.PackageID, c.CoreID, c.Kind, c.Core.Minus(affinity.Of(c.ID)))
	}
}

// One CPU of each physical core, of a machine that is somewhere else.
func ExampleTopology_Spread() {
	topology, err := affinity.ReadTopologyFS(fstest.MapFS{
		"cpu/online":                       {Data: []byte("0-3")},
		"cpu/cpu0/topology/core_cpus_list": {Data: []byte("0,2")},
		"cpu/cpu1/topology/core_cpus_list": {Data: []byte("1,3")},
		"cpu/cpu2/topology/core_cpus_list": {Data: []byte("0,2")},
		"cpu/cpu3/topology/core_cpus_list": {Data: []byte("1,3")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, policy := range []affinity.Policy{affinity.PerCPU, affinity.PerCore} {
		shares, err := topology.Spread(topology.CPUs(), 0, policy)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(policy, shares)
	}
	// Output:
	// cpu [0 1 2 3]
	// core [0,2 1,3]
}

// Leave the CPUs alone that isolcpus= keeps for others.
func ExampleIsolated() {
	allowed, err := affinity.Current()
	if err != nil {
		fmt.Println(err)
		return
	}
	isolated, err := affinity.Isolated()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(allowed.Minus(isolated))
}

func ExampleSet() {
	s, err := affinity.Parse("0-3,8")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Len(), s.Contains(8), s.Minus(affinity.Of(1)), s.IsSubsetOf(affinity.Of(1)))
	// Output: 5 true 0,2-3,8 false
}

// Read a mask as /proc/PID/status has it, and write one for smp_affinity or taskset.
func ExampleParseMask() {
	s, err := affinity.ParseMask("00000001,0000010f")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s)
	fmt.Println(s.Mask())
	// Output:
	// 0-3,8,32
	// 1,0000010f
}
