//go:build linux

package pack_test

import (
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/ebpf/steer"
	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/pack"
)

func init() { programs["steered"] = steeredProgram }

// steeredProgram is versionedProgram with steering; at USR1 its master logs what came of it.
func steeredProgram() error {
	c, address := configFlags()
	epsilon := flag.Float64("epsilon", math.Inf(1), "")
	flag.Parse()
	s := steer.New(steer.Epsilon(*epsilon))
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
func steeredPack(t *testing.T, args ...string) *program {
	t.Helper()
	p := start(t, "steered", nil, args...)
	p.addresses()
	if on := p.logged(1, "steering"); on["mode"] != "eBPF" {
		if strings.Contains(fmt.Sprint(on["reason"]), "needs CAP_BPF") {
			p.stop()
			t.Skip(on["reason"])
		}
		t.Fatal(on)
	}
	return p
}

// from runs a load whose clients are on one CPU, and returns how many were answered by the worker that is on it.
func (p *program) from(cpu int, l strictclient.Load) (local, all int) {
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
	local := func(when string) {
		t.Helper()
		for _, cpu := range cpus {
			if n, all := p.from(cpu, load(p, 4, 50)); n != all {
				t.Errorf("%s: of %d requests from CPU %d %d were answered there", when, all, cpu, n)
			}
		}
		affinity.Process(0, allowed)
	}
	local("at first")
	for i := range 3 {
		p.signal(syscall.SIGHUP)
		p.logged(i+1, "reloaded")
		local("after a reload")
		p.signal(syscall.SIGUSR2)
		p.logged(i+1, "upgraded")
		local("after an upgrade")
		syscall.Kill(p.workers()[0], syscall.SIGKILL)
		p.logged(i+1, "worker ready")
		local("after a crash")
	}
	p.signal(syscall.SIGUSR1)
	t.Log(p.logged(1, "stats")["stats"])
	p.stop()
}

// TestSteeringLosesNothing changes steered packs under load, also the number of workers.
func TestSteeringLosesNothing(t *testing.T) {
	for _, epsilon := range []string{"0", "0.25", "Inf"} {
		t.Run("epsilon "+epsilon, func(t *testing.T) {
			t.Parallel()
			p := steeredPack(t, "-generations=20", "-workers=3", "-epsilon="+epsilon)
			kept := load(p, 8, 0)
			kept.KeepAlive, kept.Pause = true, 5*time.Millisecond
			keeping, connecting := apply(t, kept), apply(t, load(p, 8, 0))
			p.changes(connecting, mixed(4)...)
			for _, u := range []*underLoad{keeping, connecting} {
				r := u.finish()
				if t.Log(r); r.Failed() != 0 || u == keeping && r.Conns != kept.Clients {
					t.Errorf("%v, %v", r, r.Samples[:min(3, len(r.Samples))])
				}
			}
			p.stop()
		})
	}
}
