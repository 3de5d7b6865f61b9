// Command affinity shows the CPUs of this machine, runs a command on some of them, or shows where the threads of a
// process may run, and where they did last:
//
//	affinity
//	affinity -cpus 0-1 make -j2
//	affinity -pid 4711
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"

	"github.com/gopherpack/gopherpack/affinity"
)

func main() {
	var cpus affinity.Set
	flag.TextVar(&cpus, "cpus", affinity.Set{}, "CPUs to run the command on, such as 0-3,8")
	pid := flag.Int("pid", 0, "process whose threads to show")
	flag.Parse()

	switch {
	case *pid != 0:
		if err := showThreads(*pid); err != nil {
			log.Fatal(err)
		}
		return
	case flag.NArg() == 0:
		if err := show(); err != nil {
			log.Fatal(err)
		}
		return
	}
	cmd := exec.Command(flag.Arg(0), flag.Args()[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := affinity.Do(cpus, cmd.Start); err != nil {
		log.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		log.Fatal(err)
	}
}

func show() error {
	allowed, err := affinity.Current()
	if err != nil {
		return err
	}
	topology, err := affinity.ReadTopology()
	if err != nil {
		return err
	}
	fmt.Println("online     ", topology.CPUs())
	fmt.Println("allowed    ", allowed, "mask", allowed.Mask())
	for policy := affinity.PerCPU; policy <= affinity.PerPackage; policy++ {
		sets, err := affinity.Spread(0, policy)
		if err != nil {
			return err
		}
		fmt.Printf("per %-7s", policy)
		for _, s := range sets {
			fmt.Print(" ", s)
		}
		fmt.Println()
	}
	return nil
}

func showThreads(pid int) error {
	threads, err := affinity.Threads(pid)
	if err != nil {
		return err
	}
	for _, t := range threads {
		fmt.Printf("%7d %-15s may run on %s, ran on %d\n", t.ID, t.Name, t.Mask, t.LastCPU)
	}
	return nil
}
