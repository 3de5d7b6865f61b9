//go:build linux

package pack_test

import (
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/ebpf/steer"
	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/pack"
)

func init() { programs["steered"] = steeredProgram }

// steeredProgram is versionedProgram with steering; at USR1 its master logs what came of it.
func steeredProgram() error {
	c, address := configFlags()
	epsilon := flag.Float64("epsilon", math.Inf(1), "")
	require := flag.Bool("require", false, "")
	flag.Parse()
	options := []steer.Option{steer.Epsilon(*epsilon)}
	if *require {
		options = append(options, steer.Require())
	}
	s := steer.New(options...)
	c.Steering = s
	if pack.IsMaster() {
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGUSR1)
		go func() {
			for range asked {
				stats, err := s.Stats()
				c.Logger.Info("stats", "stats", stats, "error", err)
			}
		}()
	}
	_, how := ownVersion()
	if _, n, ok := strings.Cut(how, "workers="); ok {
		fmt.Sscan(n, &c.Workers)
	}
	mux := http.NewServeMux()
	mux.Handle("/", handler())
	mux.HandleFunc("/version", func(w http.ResponseWriter, r *http.Request) {
		version, _ := ownVersion()
		io.WriteString(w, version)
	})
	return serve(c, *address, &http.Server{Handler: mux})
}

// steeredPack starts one, unless the kernel does not let it steer.
func steeredPack(t *testing.T, args ...string) *running {
	t.Helper()
	p := start(t, "steered", nil, args...)
	p.Addresses()
	if on := p.Logged(1, "steering"); on["mode"] != "eBPF" {
		if strings.Contains(fmt.Sprint(on["reason"]), "needs CAP_BPF") {
			p.Stop()
			t.Skip(on["reason"])
		}
		t.Fatal(on)
	}
	return p
}

// from runs a load whose clients are on one CPU, and returns how many were answered by the worker that is on it.
func (p *running) from(cpu int, l strictclient.Load) (local, all int) {
	p.t.Helper()
	err := affinity.Process(0, affinity.Of(cpu))
	if err != nil {
		p.t.Fatal(err)
	}
	r := l.Run(p.t.Context())
	if r.Failed() != 0 {
		p.t.Errorf("%v", r)
	}
	for body, n := range r.Bodies {
		all += n
		if strings.Contains(body, fmt.Sprintf(" cpu=%d pinned=true", cpu)) {
			local += n
		}
	}
	return local, all
}

// TestSteering has clients on each CPU in turn: the workers there must answer, through crashes, reloads, upgrades, and
// changes of their number.
func TestSteering(t *testing.T) {
	allowed, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer affinity.Process(0, allowed)
	cpus := slices.Collect(allowed.All())
	p := steeredPack(t, "-generations=20")
	local := func(when string, but int) {
		t.Helper()
		for _, cpu := range cpus {
			if n, all := p.from(cpu, load(p, 4, 50)); n < all-but {
				t.Errorf("%s: of %d requests from CPU %d %d were answered there", when, all, cpu, n)
			}
		}
		affinity.Process(0, allowed)
	}
	local("at first", 0)
	for i := range test.Times(1, 3) {
		p.Signal(syscall.SIGHUP)
		p.Logged(i+1, "reloaded")
		local("after a reload", 0)
		p.Signal(syscall.SIGUSR2)
		p.Logged(i+1, "upgraded")
		local("after an upgrade", 0)
		syscall.Kill(p.Workers()[0], syscall.SIGKILL)
		p.Logged(i+1, "worker ready")
		local("after a crash", 8) // who covered for it may accept a little longer
	}
	t.Log(p.stats())
	p.Stop()
}

// TestUpgradeMisroutesNothing has clients on one CPU through upgrades: all must be served there.
func TestUpgradeMisroutesNothing(t *testing.T) {
	p := steeredPack(t, "-generations=20", "-workers=2")
	allowed, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	cpu, _ := allowed.First()
	if err := affinity.Process(0, affinity.Of(cpu)); err != nil {
		t.Fatal(err)
	}
	defer affinity.Process(0, allowed)
	u := apply(t, load(p, 4, 0))
	p.changes(u, mixed(test.Times(2, 5))...)
	r := u.finish()
	away := 0
	for body, n := range r.Bodies {
		if !strings.Contains(body, fmt.Sprintf(" cpu=%d ", cpu)) {
			away += n
		}
	}
	if t.Logf("%d of %d elsewhere", away, r.Requests); r.Failed() != 0 || away != 0 {
		t.Errorf("%v, %d of them elsewhere", r, away)
	}
	p.Stop()
}

// TestSteeringLosesNothing changes steered packs under load, also the number of workers.
func TestSteeringLosesNothing(t *testing.T) {
	t.Parallel()
	for _, epsilon := range test.Some(1, []string{"0.25", "0", "Inf"}) {
		t.Run("epsilon "+epsilon, func(t *testing.T) {
			t.Parallel()
			p := steeredPack(t, "-generations=20", "-workers=3", "-epsilon="+epsilon)
			keeping, connecting := applyBoth(t, p, 8)
			p.changes(connecting, mixed(test.Times(1, 4))...)
			loseNothing(t, keeping, connecting)
			p.Stop()
		})
	}
}

// TestHungWorker stops a worker. With steering nobody new meets it, as soon as it has been found out; by the kernel's
// hash about one in two does.
func TestHungWorker(t *testing.T) {
	t.Parallel()
	steered := steeredPack(t, "-workers=2", "-epsilon=0.25")
	hashed := start(t, "http", nil, "-workers=2", "-level=debug")
	hashed.Addresses()
	for name, p := range map[string]*running{"steered": steered, "by hash": hashed} {
		const conns = 40
		pid := p.pidOf(0)
		freeze(t, pid)
		if p == steered {
			p.becomes("hung", 1)
			before, others := p.chosen(0), p.chosen(1)
			for range conns {
				if !answersWithin(p.Address(), 10*time.Second) {
					t.Errorf("%s: a new connection was not answered", name)
				}
			}
			if n, rest := p.chosen(0)-before, p.chosen(1)-others; n != 0 || rest < conns {
				t.Errorf("%s: of %d new connections %v were for the worker that hangs, and %v for the other", name, conns, n, rest)
			}
		} else {
			for range conns {
				if !answersWithin(p.Address(), 10*time.Second) {
					t.Errorf("%s: a new connection was not answered", name)
				}
			}
			p.Logged(1, "another worker serves the queue") // of the one that hangs, which some have met
		}
		syscall.Kill(pid, syscall.SIGCONT)
		if p == steered {
			p.becomes("up", 2)
			p.answer(2, load(p, 8, 25))
		}
		p.Stop()
	}
}

// becomes waits until n workers are in a state, as the steering has it.
func (p *running) becomes(state string, n int) {
	p.t.Helper()
	in := func() int { return strings.Count(fmt.Sprint(p.stats()), "State:"+state) }
	for deadline := time.Now().Add(program.Patience); in() != n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("there are never %d workers that are %s", n, state)
		}
	}
}

// stats returns what came of the steering so far: a [steer.Stats], by the names of its fields.
func (p *running) stats() map[string]any {
	p.t.Helper()
	n := p.Count("stats")
	p.Signal(syscall.SIGUSR1)
	return p.Logged(n+1, "stats")["stats"].(map[string]any)
}

// chosen returns how often a worker was chosen for a connection.
func (p *running) chosen(id int) float64 {
	p.t.Helper()
	of := p.stats()["Workers"].([]any)[id].(map[string]any)
	return of["Local"].(float64) + of["Balanced"].(float64)
}

// TestSteeringWithoutRights starts a pack whose master may not steer: it serves all the same, and says why not.
func TestSteeringWithoutRights(t *testing.T) {
	t.Parallel()
	change := func(*exec.Cmd) {}
	if os.Geteuid() == 0 {
		change = asNobody(t)
	}
	p := start(t, "steered", change, "-workers=2")
	on := p.Logged(1, "steering")
	if on["mode"] == "eBPF" || !strings.Contains(fmt.Sprint(on["reason"]), "needs CAP_BPF") ||
		strings.Contains(fmt.Sprint(on["reason"]), "RemoveMemlock") {
		t.Errorf("%v", on)
	}
	u := apply(t, load(p, 4, 0))
	p.changes(u, syscall.SIGHUP, syscall.SIGUSR2)
	loseNothing(t, u)
	p.HasWorkers(2)
	p.Stop()

	p = start(t, "steered", change, "-workers=2", "-require")
	if status := p.Wait(inTime); status != 1 || !p.Said("steer: it needs CAP_BPF") {
		t.Errorf("required: exit status %d", status)
	}
}

// TestSteeredWorkersChange upgrades to executables that want more workers, and fewer.
func TestSteeredWorkersChange(t *testing.T) {
	t.Parallel()
	p, path := startDeployed(t, "steered", nil, "-workers=4", "-epsilon=0.25")
	keeping, connecting := applyBoth(t, p, 8)
	for i, n := range test.Some(2, []int{2, 5, 1, 3}) {
		version := strconv.Itoa(i + 2)
		deploy(t, path, version, fmt.Sprintf("workers=%d", n))
		connecting.until(&connecting.answered, connecting.answered.Load()+200)
		p.Signal(syscall.SIGUSR2)
		if r := p.Logged(i+1, "upgraded"); r["workers"] != float64(n) {
			t.Errorf("%v; want %d workers", r, n)
		}
		p.HasWorkers(n)
		p.answersVersion(version)
		p.hasSockets(n)
	}
	loseLittle(t, keeping, connecting)
	p.Stop()
}
