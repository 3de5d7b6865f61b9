//go:build linux

// Chaos has a pack serve strict clients, which retry nothing, and does things to it at random: it kills, stops and
// hangs workers, has them leak memory and descriptors, fills their queues, lets the start of processes fail, reloads,
// upgrades, and changes the number of workers. After each act the service must answer in time, no request may be lost
// but those of a worker that was killed, every act must be in the log, and processes, descriptors and memory must be as
// they were.
//
//	go run ./internal/test/chaos -for 2m
//
// What it does follows from -seed, which it prints: the same seed does the same again, as far as the machine does.
package main

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

func main() {
	if os.Getenv(serverEnv) != "" {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "what is done follows from it")
	long := flag.Duration("for", 2*time.Minute, "how long to go on")
	steer := flag.Bool("steer", false, "steer connections by eBPF, if that can be")
	only := flag.String("only", "", "do only acts of this kind")
	flag.Parse()
	if err := run(*seed, *long, *steer, *only); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// run does one act after the other, and reports.
func run(seed uint64, long time.Duration, steer bool, only string) error {
	fmt.Printf("seed %d, for %v\n", seed, long)
	random := rand.New(rand.NewPCG(seed, 0))
	s, err := startServer(steer)
	if err != nil {
		return err
	}
	defer s.Kill()
	names := slices.Sorted(maps.Keys(acts))
	if only != "" {
		if acts[only] == nil {
			return fmt.Errorf("there is no act %q, only %q", only, names)
		}
		names = []string{only}
	}
	tried := map[string]int{}
	lost, answered := 0, 0
	for end := time.Now().Add(long); time.Now().Before(end); {
		name := names[random.IntN(len(names))]
		tried[name]++
		r, err := s.do(name, acts[name], random)
		if r != nil {
			lost += r.Failed()
			answered += r.Requests
		}
		if err != nil {
			fmt.Printf("the log since the act:\n%s", s.recent())
			return fmt.Errorf("act %d, %s, of seed %d: %w", sum(tried), name, seed, err)
		}
	}
	if err := s.stop(); err != nil {
		return err
	}
	fmt.Printf("%d acts, none failed: %v\n", sum(tried), tried)
	fmt.Printf("%d requests answered, %d lost by workers that were killed\n", answered, lost)
	return nil
}

func sum(counts map[string]int) (n int) {
	for _, k := range counts {
		n += k
	}
	return n
}
