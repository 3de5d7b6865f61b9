package pack

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/procgroup"
)

// identityEnv tells a worker who it is. It is believed only together with a lifeline.
const identityEnv = "GOPHERPACK_IDENTITY"

// identity is who a worker is.
type identity struct {
	id         int          // the worker ID
	generation int          // of the master's executable
	cpus       affinity.Set // that the worker is pinned to; empty if it is not
}

func (i identity) String() string {
	return fmt.Sprintf("id=%d generation=%d cpus=%s", i.id, i.generation, i.cpus)
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
		case "cpus":
			err = i.cpus.UnmarshalText([]byte(value))
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
	master kind = iota
	worker
	inline // the only process of a pack that has no master
)

// role is what this process is.
type role struct {
	kind     kind
	identity               // of a worker
	lifeline *net.UnixConn // of a worker
	err      error         // of a worker that cannot work

	succession *succession // of a master that has taken another's place
	rehearsal  *rehearsal  // of a process that only shows what it would do as a master
}

// thisProcess finds out once what this process is, when somebody first asks.
var thisProcess = sync.OnceValue(detectRole)

func detectRole() role {
	text, ok := os.LookupEnv(identityEnv)
	if ok {
		os.Unsetenv(identityEnv) // programs that a worker starts are not workers
		lifeline, err := procgroup.Inherit()
		if !errors.Is(err, procgroup.ErrNotChild) {
			return workerRole(text, lifeline, err)
		}
	}
	if on, _ := envBool(envInline); on || runtime.GOOS == "windows" {
		return role{kind: inline}
	}
	return role{kind: master, succession: inheritSuccession(), rehearsal: inheritRehearsal()}
}

func workerRole(text string, lifeline *net.UnixConn, err error) role {
	if err != nil {
		return role{kind: worker, err: err}
	}
	who, err := parseIdentity(text)
	if err != nil {
		err = fmt.Errorf("environment variable %s: %w", identityEnv, err)
	}
	return role{kind: worker, identity: who, lifeline: lifeline, err: err}
}

// IsMaster reports whether this process is the master of a pack: true in a process that no pack started,
// before Run too, false in a worker and where a pack runs in line.
func IsMaster() bool { return thisProcess().kind == master }

// WorkerID returns the number of this worker, 0 to N-1, and false in the master. A worker that replaces
// another has the other's number. In line it is 0.
func WorkerID() (id int, ok bool) {
	r := thisProcess()
	return r.id, r.kind != master
}

// WorkerCPU returns the CPU that this worker is pinned to, the lowest if it has several, and false in the
// master and in a worker that is not pinned.
func WorkerCPU() (cpu int, ok bool) { return thisProcess().cpus.First() }
