// Command affinity shows the CPUs of this machine, and runs a command on some of them:
//
//	affinity
//	affinity -cpus 0-1 make -j2
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
	flag.Parse()

	if flag.NArg() == 0 {
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
	fmt.Println("online ", topology.CPUs())
	fmt.Println("allowed", allowed)
	for policy := affinity.PerCPU; policy <= affinity.PerNode; policy++ {
		sets, err := affinity.Spread(0, policy)
		if err != nil {
			return err
		}
		fmt.Printf("per %-5s", policy)
		for _, s := range sets {
			fmt.Print(" ", s)
		}
		fmt.Println()
	}
	return nil
}
