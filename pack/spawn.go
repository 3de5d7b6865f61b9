package pack

import (
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/gopherpack/gopherpack/pack/internal/master"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/runas"
	"github.com/gopherpack/gopherpack/upgrade"
)

// command returns the command of a worker. It has the arguments, the environment and the directory with which this
// program was started, whatever has been made of them since.
func command(w master.WorkerSpec) (*exec.Cmd, error) {
	attr, err := runas.Attributes(w.User)
	if err != nil {
		return nil, err
	}
	who := identity{id: w.ID, generation: w.Generation, cpus: w.Plan.CPUs(w.ID)}
	return &exec.Cmd{
		Path:        w.Image,
		Args:        upgrade.Args(),
		Dir:         startDirectory(),
		Env:         append(workerEnv(upgrade.Environ(), w.Plan, w.ID), identityEnv+"="+who.String()),
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		SysProcAttr: attr,
	}, nil
}

// startDirectory returns where a worker starts, "" if that is where this process is: there, it need not have the right
// to go to.
func startDirectory() string {
	dir := upgrade.Dir()
	if dir == "" {
		return ""
	}
	here, err := os.Stat(".")
	there, terr := os.Stat(dir)
	if err == nil && (terr != nil || os.SameFile(here, there)) {
		return ""
	}
	return dir
}

// workerEnv returns the environment of a worker by that of this program, with the GOMAXPROCS and the GOMEMLIMIT that it
// needs. One that is pinned needs none, since it sees its own CPUs alone; the operator's was meant for the whole
// program, and the plan has regarded it.
func workerEnv(environ []string, p plan.Plan, id int) []string {
	var env []string
	for _, entry := range environ {
		switch name, _, _ := strings.Cut(entry, "="); name {
		case "GOMAXPROCS", "GOMEMLIMIT", identityEnv, procgroupEnv:
		default:
			env = append(env, entry)
		}
	}
	if p.Unpinned != "" {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(max(1, p.Shares[id].Len())))
	}
	if limit, ok := plan.MemoryLimit(); ok {
		env = append(env, "GOMEMLIMIT="+strconv.FormatUint(plan.MemoryShare(limit, p.Workers()), 10))
	}
	return env
}

// startWorker starts a worker on its CPUs. As another user, it gains no privileges any more.
func startWorker(w master.WorkerSpec, cmd *exec.Cmd) error {
	return runas.Start(w.Plan.CPUs(w.ID), cmd, w.User != "")
}
