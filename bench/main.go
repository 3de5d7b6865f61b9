//go:build linux

// Command bench measures packs and their peers on this machine, one after the other in rounds, and writes a report:
//
//	go run .                          # everything; about 15 minutes on two CPUs
//	go run . -only '^hello-new/'      # one scenario
//	go run . -only '/(net/http|pack)$'
//	go run . -only '^(hello|json)-(kept|new)/(net/http|pack.*)$' -cpus 1,2,4,8 -apart
//	go run . -from report/raw.json    # the report again, of what was measured before
//
// docs/benchmarks.md tells what each figure means, and scenarios.go has the list of what is measured of whom. It exits
// with status 1 if something could not be measured, or if a pack lost a request or a connection.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/bench/internal/report"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	b := &bench{}
	flag.IntVar(&b.rounds, "rounds", 5, "how often to measure each")
	flag.DurationVar(&b.duration, "for", time.Second, "how long to measure each time")
	flag.IntVar(&b.clients, "clients", 16, "clients per CPU of the server")
	flag.BoolVar(&b.apart, "apart", false, "have the clients on the other half of the CPUs, not on the server's")
	sizes := flag.String("cpus", "", "numbers of CPUs for the server, separated by commas; default: all, or half of them")
	only := flag.String("only", "", "measure only what matches this regular expression, as scenario/server")
	out := flag.String("out", "report", "directory for the report")
	from := flag.String("from", "", "make the report of this raw.json, and measure nothing")
	flag.StringVar(&b.programs, "programs", "", "directory of servers and clients that were built before,"+
		" by go build -o DIRECTORY ./servers/... ./clients, for a machine without Go; default: build them")
	flag.Parse()

	var raw *report.Raw
	var err error
	if *from != "" {
		raw, err = report.Read(*from)
	} else {
		raw, err = b.run(*only, *sizes, *out)
	}
	if err == nil {
		err = raw.Make(*out)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(filepath.Join(*out, "report.md"))
	if broken := raw.Broken(); len(broken) > 0 {
		log.Fatal(strings.Join(broken, "\nbench: "))
	}
}

// bench is what is to be measured, and where.
type bench struct {
	rounds   int
	duration time.Duration
	clients  int
	apart    bool

	ctx       context.Context
	dir       string // for all that is made
	programs  string // where the servers and the clients are
	usable    []int  // CPUs
	clientEnv []string
	mu        sync.Mutex
	loading   map[int]bool // processes that are clients
}

// cell is one measurement: a server in a scenario.
type cell struct {
	bench    *bench
	scenario *scenario
	server   *server
	cpus     int // that the server has
	secure   bool
	args     []string
}

// run measures everything that matches, and returns what came of it.
func (b *bench) run(only, sizes, out string) (*report.Raw, error) {
	if b.rounds < 1 || b.clients < 1 || b.duration <= 0 {
		return nil, fmt.Errorf("-rounds %d, -clients %d, -for %v: each must be more than 0", b.rounds, b.clients, b.duration)
	}
	chosen, err := choose(only)
	if err != nil {
		return nil, err
	}
	if b.usable, err = usable(); err != nil {
		return nil, err
	}
	numbers, err := b.parseSizes(sizes)
	if err != nil {
		return nil, err
	}
	end, err := b.prepare()
	if err != nil {
		return nil, err
	}
	defer end()
	raw := b.raw(chosen)
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	for round := range b.rounds {
		for _, cpus := range numbers {
			for _, s := range chosen {
				for i := range s.servers { // each round begins with another
					c := &cell{bench: b, scenario: s, server: s.servers[(i+round)%len(s.servers)], cpus: cpus}
					c.sample(raw, round)
					if b.ctx.Err() != nil {
						return nil, errors.New("interrupted")
					}
				}
			}
		}
		if err := raw.Write(filepath.Join(out, "raw.json")); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

// sample measures once, and adds what came of it.
func (c *cell) sample(raw *report.Raw, round int) {
	v, err := c.scenario.measure(c)
	if errors.Is(err, errAbsent) {
		if line := err.Error(); !slices.Contains(raw.LeftOut, line) {
			raw.LeftOut = append(raw.LeftOut, line)
		}
		return
	}
	s := report.Sample{Scenario: c.scenario.Name, Server: c.server.name, Own: c.server.own, CPUs: c.cpus, Round: round,
		Values: v}
	if err != nil {
		s.Failed, s.Values = err.Error(), nil
	}
	raw.Samples = append(raw.Samples, s)
	text := s.Failed
	for _, name := range slices.Sorted(maps.Keys(s.Values)) {
		text += fmt.Sprintf(" %s=%.4g", name, s.Values[name])
	}
	log.Printf("%d %s/%s on %d: %s", round+1, s.Scenario, s.Server, c.cpus, strings.TrimSpace(text))
}

// choose returns the scenarios and servers that match.
func choose(only string) (chosen []*scenario, err error) {
	matches, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	for _, s := range scenarios {
		s.servers = slices.DeleteFunc(slices.Clone(s.servers), func(server *server) bool {
			return !matches.MatchString(s.Name + "/" + server.name)
		})
		if len(s.servers) > 0 {
			chosen = append(chosen, &s)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-only %q matches nothing, such as hello-kept/pack", only)
	}
	return chosen, nil
}

// prepare builds all programs. The function that it returns removes what it made.
func (b *bench) prepare() (end func(), err error) {
	if err := adopt(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return nil, err
	}
	end = func() { os.RemoveAll(b.dir) }
	var cancel context.CancelFunc
	b.ctx, cancel = context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	go func() {
		<-signals
		signal.Stop(signals) // the next one ends this process
		cancel()
	}()
	b.loading = map[int]bool{}
	for _, v := range os.Environ() { // what is said to the Go runtime is for servers
		if !strings.HasPrefix(v, "GOGC=") && !strings.HasPrefix(v, "GOMEMLIMIT=") && !strings.HasPrefix(v, "GOMAXPROCS=") {
			b.clientEnv = append(b.clientEnv, v)
		}
	}
	if err := errors.Join(os.Chmod(b.dir, 0o755), writeCertificate(b.dir), b.build()); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// build builds the servers and the clients, unless that was done before.
func (b *bench) build() (err error) {
	if b.programs != "" {
		b.programs, err = filepath.Abs(b.programs)
		return err
	}
	b.programs = filepath.Join(b.dir, "programs")
	log.Print("building the servers")
	build := exec.CommandContext(b.ctx, "go", "build", "-o", b.programs+"/", "./servers/...", "./clients")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the servers (in the folder bench): %w", err)
	}
	return nil
}

// warmUp is how long clients load a server before what they do counts.
func (b *bench) warmUp() time.Duration { return min(b.duration/4, 300*time.Millisecond) }

// serverCPUs and clientCPUs return which those are of a server on so many.
func (b *bench) serverCPUs(n int) []int { return b.usable[:n] }

func (b *bench) clientCPUs(n int) []int {
	if b.apart {
		return b.usable[len(b.usable)-len(b.usable)/2:]
	}
	return b.usable[:n]
}

// parseSizes returns numbers of CPUs for the server.
func (b *bench) parseSizes(text string) (sizes []int, err error) {
	most := len(b.usable)
	if b.apart {
		most /= 2
	}
	if most == 0 {
		return nil, errors.New("-apart takes two CPUs at least")
	}
	if text == "" {
		return []int{most}, nil
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

func (b *bench) addClient(pid int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loading[pid] = true
}

func (b *bench) removeClient(pid int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.loading, pid)
}

func (b *bench) clientPIDs() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.loading))
}
