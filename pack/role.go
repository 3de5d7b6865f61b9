package pack

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/pack/internal/crash"
	"github.com/gopherpack/gopherpack/procgroup"
	"github.com/gopherpack/gopherpack/upgrade"
)

// identityEnv tells a worker who it is. It is believed only together with a control socket.
const identityEnv = "GOPHERPACK_IDENTITY"

// procgroupEnv tells it which descriptor that is; package procgroup reads it.
const procgroupEnv = "PROCGROUP_LIFELINE"

// identity is who a worker is.
type identity struct {
	id         int          // the worker ID
	generation int          // of the master's executable
	cpus       affinity.Set // that the worker is pinned to; empty if it is not

	crash int // the descriptor to which it is to write why it crashes; 0 if there is none

	// The master's stdout and stderr, if the master reads those of this worker; else 0.
	stdout, stderr int

	// What the pack has, and a worker has not.
	all    affinity.Set // the CPUs
	procs  variable     // GOMAXPROCS
	memory variable     // GOMEMLIMIT
}

// variable is the value of an environment variable, if it is set.
type variable struct {
	value string
	set   bool
}

func (i identity) String() string {
	return fmt.Sprintf("id=%d generation=%d cpus=%s crash=%d stdout=%d stderr=%d all=%s",
		i.id, i.generation, i.cpus, i.crash, i.stdout, i.stderr, i.all) +
		i.procs.field(procsEnv) + i.memory.field(memoryEnv)
}

// field returns a variable as a field of an identity.
func (v variable) field(name string) string {
	if !v.set {
		return ""
	}
	return " " + name + "=" + url.QueryEscape(v.value)
}

// in returns an environment in which a variable is so.
func (v variable) in(environ []string, name string) []string {
	environ = slices.DeleteFunc(environ, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	if v.set {
		environ = append(environ, name+"="+v.value)
	}
	return environ
}

// parseIdentity reads what String returns.
func parseIdentity(text string) (identity, error) {
	var i identity
	seen := map[string]bool{}
	for field := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(field, "=")
		var err error
		switch name {
		case "id":
			i.id, err = strconv.Atoi(value)
		case "generation":
			i.generation, err = strconv.Atoi(value)
		case "crash":
			i.crash, err = strconv.Atoi(value)
		case "stdout":
			i.stdout, err = strconv.Atoi(value)
		case "stderr":
			i.stderr, err = strconv.Atoi(value)
		case "cpus":
			err = i.cpus.UnmarshalText([]byte(value))
		case "all":
			err = i.all.UnmarshalText([]byte(value))
		case procsEnv:
			i.procs.set = true
			i.procs.value, err = url.QueryUnescape(value)
		case memoryEnv:
			i.memory.set = true
			i.memory.value, err = url.QueryUnescape(value)
		default:
			continue // from a newer master
		}
		if err != nil {
			return identity{}, fmt.Errorf("%.40q: %w", field, err)
		}
		seen[name] = true
	}
	if !seen["id"] || i.id < 0 || i.generation < 0 {
		return identity{}, fmt.Errorf("%.100q does not tell who this worker is", text)
	}
	return i, nil
}

// kind is what a process is to its pack.
type kind int

const (
	isMaster kind = iota
	isWorker
	isInline // the only process of a pack that has no master
)

// role is what this process is.
type role struct {
	kind     kind
	identity               // of a worker
	control  *net.UnixConn // of a worker
	err      error         // why it cannot be what it is, as Run says
}

// process is what this process is. It is found before main begins, when nobody has changed the environment yet, and its
// descriptor is close-on-exec from then on.
var process = detectRole()

func detectRole() role {
	text, ok := os.LookupEnv(identityEnv)
	var err error
	if ok {
		os.Unsetenv(identityEnv) // programs that a worker starts are not workers
		control, cerr := procgroup.Inherit()
		if !errors.Is(cerr, procgroup.ErrNotChild) {
			upgrade.NameProcess()
			return workerRole(text, control, cerr)
		}
		if errors.Is(cerr, procgroup.ErrDescendant) { // else a second pack would run in a worker's place
			err = errNotExeced
		}
	}
	refuseLegacy()
	if on, _ := envBool(envInline); on || runtime.GOOS == "windows" {
		return role{kind: isInline}
	}
	return role{kind: isMaster, err: err}
}

// errNotExeced is why a program is neither a worker nor the next master that something else was started as.
var errNotExeced = errors.New("a script, or another program, has started it and waits for it: " +
	"it must exec it, as in exec server \"$@\"")

func workerRole(text string, control *net.UnixConn, err error) role {
	if err != nil {
		return role{kind: isWorker, err: err}
	}
	who, err := parseIdentity(text)
	if err != nil {
		err = fmt.Errorf("environment variable %s: %w", identityEnv, err)
	}
	if who.crash > 2 {
		crash.Use(who.crash)
	}
	who.keepOutput()
	return role{kind: isWorker, identity: who, control: control, err: err}
}

// inLine is how many packs run in line in this process now.
var inLine atomic.Int64

// IsMaster reports whether this process is the master of a pack: true in a process that no pack started,
// before Run too, false in a worker and where a pack runs in line; by Config.Inline, it is false only during Run.
func IsMaster() bool { return process.kind == isMaster && inLine.Load() == 0 }

// WorkerID returns the number of this worker, 0 to N-1, and false in the master. A worker that replaces
// another has the other's number. In line it is 0, and true; by Config.Inline, only during Run.
func WorkerID() (id int, ok bool) { return process.id, !IsMaster() }

// WorkerCPU returns the CPU that this worker is pinned to, the lowest if it has several, and false in the
// master and in a worker that is not pinned.
func WorkerCPU() (cpu int, ok bool) { return process.cpus.First() }

// CPUs returns the CPUs that the pack may use: Config.CPUs as the master has it, by default all that the master may
// use. In the master and in line they are those that this process may use; where the system does not tell, none.
//
// A program that a worker starts inherits the worker's CPU mask. To have it run on all CPUs of the pack, and with its
// environment, start it so:
//
//	cmd.Env = pack.Environ()
//	err := affinity.Do(pack.CPUs(), cmd.Start)
//
// In a worker that is not pinned (see [WorkerCPU]), cmd.Start does.
func CPUs() affinity.Set {
	if process.all.Len() > 0 {
		return process.all
	}
	all, err := affinity.Allowed(0)
	if err != nil {
		return affinity.Set{}
	}
	return all
}

// Environ returns the environment for a program that a worker starts and that is to have as much as the pack: that of
// [os.Environ], with the GOMAXPROCS and the GOMEMLIMIT that the pack was started with, and not those of the worker, or
// without. In the master and in line it is that of os.Environ.
func Environ() []string {
	environ := os.Environ()
	if process.kind != isWorker {
		return environ
	}
	return process.memory.in(process.procs.in(environ, procsEnv), memoryEnv)
}
