package pack

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/master"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/runas"
	"github.com/gopherpack/gopherpack/upgrade"
)

// command returns the command of a worker. It has the arguments, the environment and the directory with which this
// program was started, whatever has been made of them since.
func (p *Pack) command(w master.WorkerSpec) (*exec.Cmd, error) {
	attr, err := runas.Attributes(w.User)
	if err != nil {
		return nil, err
	}
	environ := upgrade.Environ()
	who := identity{
		id: w.ID, generation: w.Generation, cpus: w.Plan.CPUs(w.ID),
		all: p.config.CPUs, procs: lookUp(environ, procsEnv), memory: lookUp(environ, memoryEnv),
	}
	if who.all.Len() == 0 {
		who.all = CPUs()
	}
	env, err := runas.Environ(w.User, workerEnv(environ, w.Plan, w.ID))
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path:        w.Image,
		Args:        upgrade.Args(),
		Dir:         startDirectory(),
		Env:         env,
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		SysProcAttr: attr,
	}
	if p.config.PrefixOutput { // the master reads them, and the worker cannot see where that writes
		cmd.Stdout, cmd.Stderr = nil, nil
		who.stdout, who.stderr = pass(cmd, os.Stdout), pass(cmd, os.Stderr)
		cmd.Env = append(cmd.Env, envLog+"="+p.config.form)
	}
	if w.Crash != nil {
		who.crash = pass(cmd, w.Crash)
	}
	cmd.Env = append(cmd.Env, identityEnv+"="+who.String())
	return cmd, nil
}

// pass has a process inherit a file, and returns the descriptor that it has there.
func pass(cmd *exec.Cmd, f *os.File) int {
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	return 2 + len(cmd.ExtraFiles)
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

const (
	procsEnv  = "GOMAXPROCS"
	memoryEnv = "GOMEMLIMIT"
)

// lookUp returns the value of a variable, the last one, as a program sees it.
func lookUp(environ []string, name string) (v variable) {
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			v = variable{value, true}
		}
	}
	return v
}

// workerEnv returns the environment of a worker by that of this program, with the GOMAXPROCS and the GOMEMLIMIT that it
// needs. One that is pinned needs none, since it sees its own CPUs alone; the operator's was meant for the whole
// program, and the plan has regarded it.
func workerEnv(environ []string, p plan.Plan, id int) []string {
	var env []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		ours := slices.Contains([]string{procsEnv, memoryEnv, identityEnv, procgroupEnv}, name)
		if !ours && !systemd.IsMeantForOne(name) {
			env = append(env, entry)
		}
	}
	if p.Unpinned != "" {
		env = append(env, procsEnv+"="+strconv.Itoa(max(1, p.Shares[id].Len())))
	}
	if limit, ok := plan.MemoryLimit(); ok {
		env = append(env, memoryEnv+"="+strconv.FormatUint(plan.MemoryShare(limit, p.Workers()), 10))
	}
	return env
}

// startWorker starts a worker on its CPUs. As another user, it gains no privileges any more.
func startWorker(w master.WorkerSpec, cmd *exec.Cmd) error {
	err := runas.Start(w.Plan.CPUs(w.ID), cmd, w.User != "")
	if err != nil && w.User != "" {
		err = runas.Explain(w.User, cmd, err)
	}
	return runas.Named(err)
}

// mayBeRun reports that the user of the workers may not execute this program.
func (p *Pack) mayBeRun() error {
	if p.config.User == "" {
		return nil
	}
	image, err := upgrade.RunningImage()
	if err != nil {
		return nil // the master will say so
	}
	defer image.Close()
	return runas.MayExecute(p.config.User, image.Path())
}
