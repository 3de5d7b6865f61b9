// Command frameworks serves with servers that others wrote, each as a pack, and counts what clients lose that retry
// nothing: while the pack is reloaded and upgraded, when it is stopped, and when it is cut. It prints a table.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

var (
	beName  = flag.String("serve", "", "be the server of this framework")
	address = flag.String("addr", "", "address of -serve")
	limit   = flag.Duration("timeout", 30*time.Second, "ShutdownTimeout of -serve")
	only    = flag.String("only", "", "measure only the frameworks whose names match this regular expression")
	reloads = flag.Int("reloads", 3, "how often each pack is reloaded (HUP)")
	grades  = flag.Int("upgrades", 2, "how often each pack is upgraded (USR2)")
	clients = flag.Int("clients", 8, "clients of each kind")
	slow    = flag.Duration("slow", time.Second, "how long a request takes that is in flight during a change")
	pause   = flag.Duration("pause", time.Millisecond, "time between the requests of a client, on average")
	atOnce  = flag.Int("at-once", 1, "how many frameworks are measured at once")
	verbose = flag.Bool("v", false, "show the logs of the packs")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	if *beName != "" {
		if err := serve(*beName, *address, *limit); err != nil {
			log.Fatal(err)
		}
		return
	}
	matches, err := regexp.Compile(*only)
	if err != nil {
		log.Fatal(err)
	}
	lines, err := handed()
	if err != nil {
		log.Fatal(err)
	}
	chosen := slices.DeleteFunc(slices.Clone(frameworks), func(f framework) bool {
		return !matches.MatchString(f.name)
	})
	rows := make([]row, len(chosen))
	var running sync.WaitGroup
	slots := make(chan struct{}, *atOnce)
	for i, f := range chosen {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			rows[i] = measure(f)
		})
	}
	running.Wait()
	fmt.Println("| | `p.Handle(network, address, ...)` | new | kept alive | in flight | in flight at a stop | cut, and said |")
	fmt.Println("|---|---|---|---|---|---|---|")
	failed := false
	for i, r := range rows {
		fmt.Printf("| %s | `%s` | %s |\n", chosen[i].name, lines[makerOf(chosen[i])], r)
		if r.problem != "" {
			fmt.Fprintf(os.Stderr, "%s: %s\n", chosen[i].name, r.problem)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

// makerOf returns the name of the function that makes a framework's server.
func makerOf(f framework) string {
	name := runtime.FuncForPC(reflect.ValueOf(f.make).Pointer()).Name()
	return name[strings.LastIndex(name, ".")+1:]
}

// row is what came of a framework.
type row struct {
	cells   []string
	problem string // something was lost, or is wrong
}

func (r row) String() string { return strings.Join(r.cells, " | ") }

func (r *row) fail(format string, args ...any) { r.problem += fmt.Sprintf(format+" ", args...) }

// add adds the requests of one kind, of which none may be lost.
func (r *row) add(what string, results ...*strictclient.Result) {
	lost, all := 0, 0
	for _, result := range results {
		lost += result.Failed()
		all += result.Failed() + result.Requests
		for _, kind := range slices.Sorted(maps.Keys(result.Failures)) {
			r.fail("%s: %d %s;", what, result.Failures[kind], kind)
		}
	}
	if all == 0 {
		r.fail("%s: nothing was asked;", what)
	}
	r.cells = append(r.cells, fmt.Sprintf("%d of %d", lost, all))
}

// measure measures a framework.
func measure(f framework) (r row) {
	p, err := start(f.name, 30*time.Second)
	if err != nil {
		return row{problem: err.Error()}
	}
	defer p.kill()
	kinds := []load{
		{request: "hello", pause: *pause},
		{request: "hello", pause: *pause, keep: true},
		{request: "slow"},
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	results := make([]*strictclient.Result, len(kinds))
	var loads sync.WaitGroup
	for i, l := range kinds {
		l.protocol, l.address, l.clients, l.sent = f.speak, p.address, *clients, new(atomic.Int64)
		loads.Go(func() { results[i] = l.run(ctx) })
	}
	err = p.change()
	cancel()
	loads.Wait()
	r.add("new connections", results[0])
	r.add("kept alive", results[1])
	r.add("in flight", results[2])
	if err != nil {
		r.fail("%v", err)
		return r
	}
	result, _, err := p.stop(f, "slow")
	r.add("in flight at a stop", result)
	if err != nil {
		r.fail("%v", err)
	}
	r.cut(f)
	return r
}

// cut stops a pack that has too little time for what is in flight, and compares what is lost with what the pack says.
func (r *row) cut(f framework) {
	p, err := start(f.name, time.Second)
	if err != nil {
		r.fail("%v", err)
		return
	}
	defer p.kill()
	result, said, err := p.stop(f, "hang")
	r.cells = append(r.cells, fmt.Sprintf("%d, %d", result.Failed(), said))
	if err != nil || result.Failed() != said {
		r.fail("%v, and it said that it has cut %d: %v", result, said, err)
	}
}

// running is a pack that runs.
type running struct {
	*exec.Cmd
	address string
	lines   chan string // of its log
	drained int         // generations, by the lines that were awaited
}

// start starts a pack and waits until it is up.
func start(name string, timeout time.Duration) (*running, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // for a port that nobody has
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &running{address: address, lines: make(chan string, 1000)}
	p.Cmd = exec.Command(exe, "-serve", name, "-addr", address, "-timeout", timeout.String(), "-slow", slow.String())
	out, err := p.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	go p.read(out)
	if _, err := p.await("pack is up"); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

func (p *running) read(out io.Reader) {
	defer close(p.lines)
	for s := bufio.NewScanner(out); s.Scan(); {
		if *verbose {
			fmt.Fprintln(os.Stderr, s.Text())
		}
		p.lines <- s.Text()
	}
}

func (p *running) kill() {
	p.Process.Kill() // its workers see that
	for range p.lines {
	}
	p.Wait()
}

// await waits for a line of the log that begins with a text.
func (p *running) await(text string) (line string, err error) {
	limit := time.After(time.Minute)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return "", fmt.Errorf("the pack has ended without saying %q", text)
			}
			if strings.HasPrefix(line, "INFO generation has drained ") {
				p.drained++
			}
			if strings.HasPrefix(line, "INFO "+text) {
				return line, nil
			}
		case <-limit:
			return "", fmt.Errorf("the pack does not say %q", text)
		}
	}
}

// change reloads and upgrades the pack, and returns when all old workers have gone.
func (p *running) change() error {
	time.Sleep(*slow / 2) // something is in flight
	changes := slices.Repeat([]syscall.Signal{syscall.SIGHUP}, *reloads)
	changes = append(changes, slices.Repeat([]syscall.Signal{syscall.SIGUSR2}, *grades)...)
	for _, s := range changes {
		if err := p.Process.Signal(s); err != nil {
			return err
		}
		done := "reloaded"
		if s == syscall.SIGUSR2 {
			done = "upgraded"
		}
		if _, err := p.await(done); err != nil {
			return err
		}
		time.Sleep(*slow / 2)
	}
	for p.drained < len(changes) {
		if _, err := p.await("generation has drained"); err != nil {
			return err
		}
	}
	return nil
}

var cutBy = regexp.MustCompile(` cut=(\d+)`)

// stop stops the pack while each client waits for an answer. It returns what came of these, and how many connections
// the pack says it has cut.
func (p *running) stop(f framework, request string) (result *strictclient.Result, cut int, err error) {
	results := make(chan *strictclient.Result)
	var sent atomic.Int64
	l := load{protocol: f.speak, address: p.address, clients: *clients, request: request, once: true, sent: &sent}
	go func() { results <- l.run(context.Background()) }()
	for deadline := time.Now().Add(timeout); sent.Load() < int64(*clients) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(*slow / 2) // until the server has them
	if err = p.Process.Signal(syscall.SIGTERM); err == nil {
		var line string
		if line, err = p.await("stopped "); err == nil {
			cut, err = strconv.Atoi(cutBy.FindStringSubmatch(line + " cut=-1")[1])
		}
	}
	return <-results, cut, err
}
