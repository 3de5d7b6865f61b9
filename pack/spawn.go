package pack

import (
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/gopherpack/gopherpack/affinity"
)

// command returns the command of a worker: this executable, with the same arguments.
func (m *masterState) command(generation, id int) (*exec.Cmd, error) {
	exe, err := executable()
	if err != nil {
		return nil, err
	}
	cpus := m.plan.cpus(id)
	who := identity{id: id, generation: generation, cpus: cpus}
	return &exec.Cmd{
		Path:        exe,
		Args:        os.Args,
		Env:         append(workerEnv(m.plan, id), identityEnv+"="+who.String()),
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		SysProcAttr: m.attr,
	}, nil
}

// workerEnv returns the environment of this process with the GOMAXPROCS that a worker needs. One that is pinned
// needs none, since it sees its own CPUs alone; the operator's was meant for the whole program, and plan has
// regarded it.
func workerEnv(p plan, id int) []string {
	var env []string
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); name != "GOMAXPROCS" {
			env = append(env, entry)
		}
	}
	if p.unpinned != "" {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(max(1, p.shares[id].Len())))
	}
	return env
}

// startOnCPUs starts a worker on its CPUs.
func (m *masterState) startOnCPUs(id int, cmd *exec.Cmd) error {
	if cpus := m.plan.cpus(id); cpus.Len() > 0 {
		return affinity.Do(cpus, cmd.Start)
	}
	return cmd.Start()
}
