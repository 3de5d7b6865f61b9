package pack

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/executable"
)

// command returns the command of a worker: the generation's executable, with this process's arguments.
func command(g generationSpec, id int, attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	exe, err := g.executable()
	if err != nil {
		return nil, err
	}
	who := identity{id: id, generation: g.number, cpus: g.plan.cpus(id)}
	return &exec.Cmd{
		Path:        exe,
		Args:        os.Args,
		Env:         append(workerEnv(g.plan, id), identityEnv+"="+who.String()),
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		SysProcAttr: attr,
	}, nil
}

// executable returns what the workers run. Without an image of its own, that is the very file that this process runs,
// also when another has taken its place on disk meanwhile.
func (g generationSpec) executable() (string, error) {
	if g.image != nil {
		return g.image.Path()
	}
	return executable.RunningPath()
}

// workerEnv returns the environment of this process with the GOMAXPROCS and the GOMEMLIMIT that a worker needs. One that is pinned
// needs none, since it sees its own CPUs alone; the operator's was meant for the whole program, and plan has
// regarded it.
func workerEnv(p plan, id int) []string {
	var env []string
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); name != "GOMAXPROCS" && name != "GOMEMLIMIT" {
			env = append(env, entry)
		}
	}
	if p.unpinned != "" {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(max(1, p.shares[id].Len())))
	}
	if limit, ok := memoryLimit(); ok {
		env = append(env, "GOMEMLIMIT="+strconv.FormatUint(memoryShare(limit, p.workers()), 10))
	}
	return env
}

// startOnCPUs starts a worker on its CPUs. If it is confined it gains no privileges any more, nor does what it starts.
func startOnCPUs(cpus affinity.Set, cmd *exec.Cmd, confined bool) error {
	switch {
	case confined:
		return startConfined(cpus, cmd)
	case cpus.Len() > 0:
		return affinity.Do(cpus, cmd.Start)
	}
	return cmd.Start()
}
