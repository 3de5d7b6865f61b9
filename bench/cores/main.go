//go:build linux

// Command cores compares servers of one process with packs, on more and more CPUs, under the same loads in one run, and
// prints a table: requests per second, what one costs the server in processor time, and how long one takes.
//
//	go run ./cores -rounds 5
//
// Clients run on this machine. They have the other half of the CPUs to themselves, or, with -shared, the same CPUs as
// the server; then the client on a CPU is what that CPU receives from. Each figure is the median of the rounds.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
)

func main() {
	log.SetFlags(0)
	serve := flag.String("serve", "", "be one of the servers")
	load := flag.Int("load", 0, "be so many clients")
	var c comparison
	flag.StringVar(&c.address, "addr", "127.0.0.1:18080", "address to listen on; nothing else may")
	flag.StringVar(&c.path, "path", "", "only requests for this path: /hello or /json")
	flag.DurationVar(&c.duration, "for", 2*time.Second, "how long to measure each time")
	flag.IntVar(&c.rounds, "rounds", 3, "how often to measure each")
	flag.IntVar(&c.clients, "clients", 16, "clients per CPU of the server")
	flag.BoolVar(&c.shared, "shared", false, "have the clients on the same CPUs")
	sizes := flag.String("cpus", "", "numbers of CPUs for the server, separated by commas; default: 1, 2, 4 and so on")
	keepAlive := flag.Bool("keepalive", false, "with -load: keep connections")
	flag.Parse()

	var err error
	switch run := servers[*serve]; {
	case run != nil:
		err = run(c.address)
	case *serve != "":
		err = fmt.Errorf("-serve %q: want one of %q", *serve, order)
	case *load > 0:
		err = runLoad(loadConfig{c.address, c.path, *load, *keepAlive, c.duration})
	default:
		err = c.run(*sizes)
	}
	if err != nil {
		log.Fatal("cores: ", err)
	}
}

// comparison is what to compare.
type comparison struct {
	address  string
	path     string
	duration time.Duration
	rounds   int
	clients  int
	shared   bool
}

// paths are what is asked for.
var paths = []string{"/hello", "/json"}

// run prints the table.
func (c *comparison) run(sizes string) error {
	switch {
	case c.path != "" && !slices.Contains(paths, c.path):
		return fmt.Errorf("-path %q: want one of %q", c.path, paths)
	case c.rounds < 1 || c.clients < 1 || c.duration <= 0:
		return fmt.Errorf("-rounds %d, -clients %d, -for %v: each must be more than 0", c.rounds, c.clients, c.duration)
	}
	cpus, err := usable()
	if err != nil {
		return err
	}
	most := len(cpus) / 2
	if c.shared {
		most = len(cpus)
	}
	numbers, err := parseSizes(sizes, most)
	if err != nil {
		return err
	}
	fmt.Printf("%-4s %-6s %-10s %-22s %10s %19s %7s %9s %9s %9s\n",
		"CPUs", "path", "connection", "server", "requests/s", "(least to most)", "CPU, us", "of CPUs", "p50, us", "p99, us")
	for _, n := range numbers {
		theirs := cpus[len(cpus)-most:]
		if c.shared {
			theirs = cpus[:n]
		}
		for _, path := range paths {
			if c.path != "" && c.path != path {
				continue
			}
			for _, keepAlive := range []bool{true, false} {
				if err := c.compare(cpus[:n], theirs, path, keepAlive); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// compare measures all servers under one load, round by round, and prints a line for each.
func (c *comparison) compare(server, clients []int, path string, keepAlive bool) error {
	rounds := map[string][]outcome{}
	for range c.rounds {
		for _, name := range order {
			o, err := c.measure(name, server, clients, path, keepAlive)
			if errors.Is(err, errNotServing) {
				continue // it has said why
			}
			if err != nil {
				return fmt.Errorf("%s on %d CPUs, %s: %w", name, len(server), path, err)
			}
			rounds[name] = append(rounds[name], o)
		}
	}
	connection := "new"
	if keepAlive {
		connection = "kept"
	}
	for _, name := range order {
		all := rounds[name]
		if len(all) == 0 {
			continue
		}
		rate := of(all, func(o outcome) float64 { return o.rate })
		fmt.Printf("%-4d %-6s %-10s %-22s %10.0f %9.0f %9.0f %7.1f %8.0f%% %9.0f %9.0f\n",
			len(server), path, connection, name, median(rate), slices.Min(rate), slices.Max(rate),
			median(of(all, func(o outcome) float64 { return o.cost })),
			100*median(of(all, func(o outcome) float64 { return o.busy }))/float64(len(server)),
			median(of(all, func(o outcome) float64 { return o.p50 })),
			median(of(all, func(o outcome) float64 { return o.p99 })))
	}
	return nil
}

// outcome is what one measurement gave.
type outcome struct {
	rate     float64 // requests per second
	cost     float64 // processor time of the server for each, in microseconds
	busy     float64 // CPUs that the server kept busy
	p50, p99 float64 // how long one takes, in microseconds
}

func of(all []outcome, value func(outcome) float64) (values []float64) {
	for _, o := range all {
		values = append(values, value(o))
	}
	return values
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// usable returns the CPUs that this process may use; hardware threads of one core stand side by side.
func usable() ([]int, error) {
	topology, err := affinity.ReadTopology()
	if err != nil {
		return nil, err
	}
	allowed, err := affinity.Allowed(os.Getpid())
	if err != nil {
		return nil, err
	}
	if allowed.Len() < 2 {
		return nil, fmt.Errorf("it takes two CPUs at least, one for the clients; this process may use %v", allowed)
	}
	topology = slices.DeleteFunc(topology, func(c affinity.CPU) bool { return !allowed.Contains(c.ID) })
	slices.SortStableFunc(topology, func(a, b affinity.CPU) int {
		first, _ := a.Core.First()
		second, _ := b.Core.First()
		return cmp.Compare(first, second)
	})
	var ids []int
	for _, c := range topology {
		ids = append(ids, c.ID)
	}
	return ids, nil
}

// parseSizes returns numbers of CPUs for a server that may have so many.
func parseSizes(text string, most int) (sizes []int, err error) {
	if text == "" {
		for n := 1; n <= most; n *= 2 {
			sizes = append(sizes, n)
		}
		return sizes, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 || n > most {
			return nil, fmt.Errorf("-cpus %q: want numbers from 1 to %d", text, most)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}
