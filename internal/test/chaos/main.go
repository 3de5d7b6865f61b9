//go:build linux

// Chaos has a pack serve strict clients, which retry nothing, and does things to it at random: it kills, stops and
// hangs workers, tells them to stop, has them break the protocol, leak memory and descriptors, fills their queues,
// stops who covers for who is stopped, lets the start of processes fail, leaves no descriptors, reloads, upgrades,
// changes the number of workers, sends halves of requests meanwhile, reads no log, and ends the pack by TERM to all, or
// by KILL to the master, to start it anew. After each act the service must answer in time, no request may be lost but
// those that a worker had accepted that was killed, and those that nobody accepts while there is no pack, every act
// must be in the log, and processes, descriptors and memory must be as they were.
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
	"strings"
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
	only := flag.String("only", "", "do only acts of these kinds, with commas between")
	flag.Parse()
	if err := run(*seed, *long, *steer, *only); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// run does one act after the other, and reports.
func run(seed uint64, long time.Duration, steer bool, only string) error {
	fmt.Printf("seed %d, for %v\n", seed, long)
	names := slices.Sorted(maps.Keys(acts))
	if only != "" {
		all := names
		names = strings.Split(only, ",")
		for _, name := range names {
			if acts[name] == nil {
				return fmt.Errorf("there is no act %q, only %q", name, all)
			}
		}
	}
	mode := "hash"
	if steer {
		mode = "steer"
	}
	s, err := startServer(mode)
	if err != nil {
		return err
	}
	defer s.end()
	random := rand.New(rand.NewPCG(seed, 0))
	tried := map[string]int{}
	var all toll
	for end := time.Now().Add(long); time.Now().Before(end); {
		name := names[random.IntN(len(names))]
		tried[name]++
		// What an act draws may depend on what it meets, and is not to change what comes after it.
		t, err := s.do(name, acts[name], rand.New(rand.NewPCG(seed, uint64(sum(tried)))))
		all.add(t)
		if err != nil {
			err = fmt.Errorf("act %d, %s, of seed %d: %w", sum(tried), name, seed, err)
			fmt.Printf("%v\nthe log since the act:\n%s", err, s.recent()) // above, too, where who cuts long output leaves it
			return err
		}
	}
	if err := s.stop(); err != nil {
		return err
	}
	fmt.Printf("%d acts, none failed: %v\n", sum(tried), tried)
	fmt.Printf("requests: %v; without a pack for %v at most\n", all, s.longestGap.Round(time.Millisecond))
	return nil
}

func sum(counts map[string]int) (n int) {
	for _, k := range counts {
		n += k
	}
	return n
}
