// Package plan says how many workers there are, and what each gets of the machine: CPUs, and memory.
package plan

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/cgroup"
)

// MaxWorkers is a sanity check; the kernel's own limit for sockets on one address is 65535.
const MaxWorkers = 4096

// Plan says how many workers there are and what each gets.
type Plan struct {
	Shares   []affinity.Set `json:"shares"`             // the CPUs of each worker
	Unpinned string         `json:"unpinned,omitempty"` // why they are not pinned; "" if they are
}

// Workers returns how many there are.
func (p Plan) Workers() int { return len(p.Shares) }

// CPUs returns the CPUs that a worker is pinned to: none if it is not.
func (p Plan) CPUs(worker int) affinity.Set {
	if p.Unpinned != "" {
		return affinity.Set{}
	}
	return p.Shares[worker]
}

// Pinned returns the CPUs that each worker is pinned to.
func (p Plan) Pinned() []affinity.Set {
	workers := make([]affinity.Set, p.Workers())
	for id := range workers {
		workers[id] = p.CPUs(id)
	}
	return workers
}

// All returns the CPUs of all workers.
func (p Plan) All() affinity.Set {
	var s affinity.Set
	for _, share := range p.Shares {
		s = s.Union(share)
	}
	return s
}

// Equal reports whether two plans give the same to the same workers. Why they are not pinned may differ.
func (p Plan) Equal(other Plan) bool {
	return slices.Equal(p.Shares, other.Shares) && (p.Unpinned == "") == (other.Unpinned == "")
}

// Request is what is wanted of a plan, as in pack.Config.
type Request struct {
	Workers   int // 0: as many as there are shares
	CPUs      affinity.Set
	Placement affinity.Policy
}

// Machine is what a plan depends on. What cannot be found out is no reason not to start: it has an error here.
type Machine struct {
	Allowed  affinity.Set      // the CPUs that this process may use
	Topology affinity.Topology // of those CPUs, at least
	Quota    float64           // of processor time, in CPUs; 0 if there is none
	MaxProcs int               // GOMAXPROCS in the environment; 0 if it is not set

	NoPinning  error // why no process can be pinned; Allowed may be empty
	NoTopology error // why Topology shares nothing
	NoQuota    error // why Quota is not known
}

// ThisMachine reads what the plan depends on.
func ThisMachine() (m Machine) {
	if n, err := strconv.ParseInt(os.Getenv("GOMAXPROCS"), 10, 32); err == nil { // the runtime ignores others, too
		m.MaxProcs = int(n)
	}
	if runtime.GOOS != "linux" {
		m.NoPinning = errors.New(runtime.GOOS + " cannot pin processes")
		return m
	}
	if m.Allowed, m.NoPinning = affinity.Allowed(0); m.NoPinning == nil {
		m.NoPinning = tryPinning(m.Allowed)
	}
	m.Topology, m.NoTopology = affinity.ReadTopology()
	m.Quota, _, m.NoQuota = cgroup.Quota()
	return m
}

// Usable is what this process may use of the processors. A container, or its control group, can get more, or less, while
// it runs. The zero value says that nothing is known.
type Usable struct {
	CPUs  affinity.Set
	Quota float64 // of processor time, in CPUs; 0 if there is none
}

// Now returns what it is now. What the system does not tell is as before.
func (u Usable) Now() Usable {
	if cpus, err := affinity.Allowed(0); err == nil {
		u.CPUs = cpus
	}
	if quota, _, err := cgroup.Quota(); err == nil {
		u.Quota = quota
	}
	return u
}

func (u Usable) String() string {
	if u.Quota == 0 {
		return u.CPUs.String()
	}
	return fmt.Sprintf("%s (quota %.4g)", u.CPUs, u.Quota)
}

// tryPinning says why this process may not pin threads: a filter of system calls can forbid it. The thread that tries
// ends, since the kernel gives no CPUs that are added later to one whose mask was ever set.
func tryPinning(cpus affinity.Set) error {
	tried := make(chan error)
	go func() {
		_, err := affinity.Pin(cpus) // and never undone
		tried <- err
	}()
	return <-tried
}

// On decides how many workers there are on a machine and what each gets.
func (r Request) On(m Machine) (Plan, error) {
	if err := r.impossible(m); err != nil {
		return Plan{}, err
	}
	if m.Allowed.IsEmpty() {
		n := r.Workers
		if n == 0 {
			n = runtime.GOMAXPROCS(0)
		}
		return Plan{Shares: make([]affinity.Set, n), Unpinned: r.unpinned(m, 0)}, nil
	}
	cpus := m.Allowed
	if !r.CPUs.IsEmpty() {
		cpus = r.CPUs
	}
	shares, err := m.Topology.Spread(cpus, 0, r.Placement)
	if err != nil {
		return Plan{}, err
	}
	n := r.Workers
	if n == 0 {
		n = len(shares)
		if m.Quota > 0 && m.Quota < float64(cpus.Len()) {
			n = min(n, workersFor(m.Quota, cpus.Len(), len(shares)))
		}
		if m.MaxProcs > 0 {
			n = min(n, workersFor(float64(m.MaxProcs), cpus.Len(), len(shares)))
		}
	}
	if shares, err = m.Topology.Spread(cpus, n, r.Placement); err != nil {
		return Plan{}, err
	}
	return Plan{Shares: shares, Unpinned: r.unpinned(m, cpus.Len())}, nil
}

// impossible says why CPUs or a placement that were asked for cannot be had.
func (r Request) impossible(m Machine) error {
	placed := r.Placement != affinity.PerCPU
	switch forbidden := r.CPUs.Minus(m.Allowed); {
	case runtime.GOOS != "linux":
		return nil // programs shall run where they are written, too
	case m.NoPinning != nil && !r.CPUs.IsEmpty():
		return fmt.Errorf("CPUs %q: workers cannot be pinned here, so name none: %w", r.CPUs, m.NoPinning)
	case m.NoPinning != nil && placed:
		return fmt.Errorf("placement %q: workers cannot be pinned here, so name none: %w", r.Placement, m.NoPinning)
	case m.NoTopology != nil && placed:
		return fmt.Errorf("placement %q: which CPUs share what is not known here, so name none: %w",
			r.Placement, m.NoTopology)
	case !forbidden.IsEmpty():
		return fmt.Errorf("CPUs %q: this process may not use %q, only %q", r.CPUs, forbidden, m.Allowed)
	}
	return nil
}

// unpinned says why workers are not pinned to CPUs, of which there are so many, and "" if they are: they always are to
// CPUs that were asked for.
func (r Request) unpinned(m Machine, cpus int) string {
	switch {
	case m.NoPinning != nil:
		return m.NoPinning.Error()
	case !r.CPUs.IsEmpty():
		return ""
	case m.NoTopology != nil:
		return m.NoTopology.Error()
	case r.Workers != 0:
		return ""
	case m.NoQuota != nil:
		return m.NoQuota.Error()
	case m.Quota > 0 && m.Quota < float64(cpus):
		return fmt.Sprintf("the processor quota is %.4g of %d CPUs", m.Quota, cpus)
	}
	return ""
}

// workersFor returns how many workers, of those that cpus CPUs have, it takes to use a number of CPUs.
func workersFor(use float64, cpus, shares int) int {
	return int(max(1, min(math.Ceil(use*float64(shares)/float64(cpus)), float64(shares))))
}

// Check reports whether there can be so many workers.
func Check(workers int) error {
	if workers < 1 || workers > MaxWorkers {
		return fmt.Errorf("%d workers: there must be 1 to %d", workers, MaxWorkers)
	}
	return nil
}

// Here plans for this machine, also where it does not tell about its CPUs. workers, if not 0, counts instead of the
// request's.
func (r Request) Here(workers int) (Plan, error) {
	if workers != 0 {
		if err := Check(workers); err != nil {
			return Plan{}, err
		}
		r.Workers = workers
	}
	return r.On(ThisMachine())
}
