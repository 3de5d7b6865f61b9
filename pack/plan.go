package pack

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/cgroup"
)

// plan says how many workers there are and what each gets.
type plan struct {
	shares   []affinity.Set // the CPUs of each worker
	unpinned string         // why they are not pinned; "" if they are
}

func (p plan) workers() int { return len(p.shares) }

// cpus returns the CPUs that a worker is pinned to: none if it is not.
func (p plan) cpus(worker int) affinity.Set {
	if p.unpinned != "" {
		return affinity.Set{}
	}
	return p.shares[worker]
}

// pinned returns the CPUs that each worker is pinned to.
func (p plan) pinned() []affinity.Set {
	workers := make([]affinity.Set, p.workers())
	for id := range workers {
		workers[id] = p.cpus(id)
	}
	return workers
}

// all returns the CPUs of all workers.
func (p plan) all() affinity.Set {
	var s affinity.Set
	for _, share := range p.shares {
		s = s.Union(share)
	}
	return s
}

// machine is what a plan depends on.
type machine struct {
	allowed  affinity.Set // the CPUs that this process may use
	topology affinity.Topology
	quota    float64 // of processor time, in CPUs; 0 if there is none
	maxProcs int     // GOMAXPROCS in the environment; 0 if it is not set
}

// thisMachine reads what the plan depends on. Where the system cannot tell, err matches errors.ErrUnsupported.
func thisMachine() (machine, error) {
	var m machine
	var err error
	m.maxProcs, _ = strconv.Atoi(os.Getenv("GOMAXPROCS")) // the runtime ignores what is no number, too
	if m.allowed, err = affinity.Allowed(0); err != nil {
		return m, err
	}
	if m.topology, err = affinity.ReadTopology(); err != nil {
		return m, err
	}
	quota, limited, err := cgroup.Quota()
	if err != nil {
		return m, err
	}
	if limited {
		m.quota = quota
	}
	return m, nil
}

// plan decides how many workers there are and what each gets.
func (c *Config) plan(m machine) (plan, error) {
	cpus := m.allowed
	if c.CPUs.Len() > 0 {
		if forbidden := c.CPUs.Minus(m.allowed); forbidden.Len() > 0 {
			return plan{}, fmt.Errorf("CPUs %q: this process may not use %q, only %q", c.CPUs, forbidden, m.allowed)
		}
		cpus = c.CPUs
	}
	shares, err := m.topology.Spread(cpus, 0, c.Placement)
	if err != nil {
		return plan{}, err
	}
	n := c.Workers
	unpinned := ""
	if n == 0 {
		n = len(shares)
		if m.quota > 0 && m.quota < float64(cpus.Len()) {
			n = min(n, workersFor(m.quota, cpus.Len(), len(shares)))
			if c.CPUs.Len() == 0 {
				unpinned = fmt.Sprintf("the processor quota is %.4g of %d CPUs", m.quota, cpus.Len())
			}
		}
		if m.maxProcs > 0 {
			n = min(n, workersFor(float64(m.maxProcs), cpus.Len(), len(shares)))
		}
	}
	if shares, err = m.topology.Spread(cpus, n, c.Placement); err != nil {
		return plan{}, err
	}
	return plan{shares: shares, unpinned: unpinned}, nil
}

// workersFor returns how many workers, of those that cpus CPUs have, it takes to use a number of CPUs.
func workersFor(use float64, cpus, shares int) int {
	return max(1, int(math.Ceil(use*float64(shares)/float64(cpus))))
}

// planFor plans for a number of workers.
func (c *Config) planFor(workers int) (plan, error) {
	if workers < 1 || workers > maxWorkers {
		return plan{}, fmt.Errorf("%d workers: there must be 1 to %d", workers, maxWorkers)
	}
	other := *c
	other.Workers = workers
	return other.makePlan()
}

// makePlan plans for this machine, also where it does not tell about its CPUs.
func (c *Config) makePlan() (plan, error) {
	m, err := thisMachine()
	if errors.Is(err, errors.ErrUnsupported) {
		n := c.Workers
		if n == 0 {
			n = runtime.GOMAXPROCS(0)
		}
		return plan{shares: make([]affinity.Set, n), unpinned: runtime.GOOS + " cannot pin processes"}, nil
	}
	if err != nil {
		return plan{}, err
	}
	return c.plan(m)
}
