package pack

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
)

// Placement says how large a share of the machine each worker gets.
type Placement = affinity.Policy

const (
	PerCPU     = affinity.PerCPU     // one worker per CPU, pinned to it; each has GOMAXPROCS 1, but see SingleP
	PerCore    = affinity.PerCore    // one per physical core, on its hardware threads
	PerCache   = affinity.PerCache   // one per last-level cache, on the CPUs that share it
	PerNode    = affinity.PerNode    // one per NUMA node, on its CPUs
	PerPackage = affinity.PerPackage // one per package (socket), on its CPUs
)

// Config is what can be set about a pack. The zero value is a good default.
//
// Some fields can be overridden by the environment of the master, for operators: GOPHERPACK_WORKERS,
// GOPHERPACK_CPUS ("0-3,8"), GOPHERPACK_PLACEMENT ("cpu", "core", "cache", "node", "package") and
// GOPHERPACK_INLINE ("1"). One that is empty counts as not set. GOPHERPACK_LOG says how the log looks; see Logger.
//
// The master goes by its own Config, from its start or the last upgrade on. In a reload new workers have what main
// makes of it then, of a changed file for instance: it counts for the hooks that are called in workers, Logger, Probe,
// WrapListener, Files, SingleP, TicketKeys, AcceptAtOnce, DrainDelay, and how long their own drain takes
// (ShutdownTimeout). All else changes with an upgrade, which may be to the same executable.
type Config struct {
	// Workers is the number of workers. Default, 0: as many as the machine has shares of the size of
	// Placement among the CPUs that may be used, and not more than the processor quota of the control
	// groups, or GOMAXPROCS in the environment, allows.
	Workers int

	// CPUs are those to use. Default, the empty set: all that this process may use, by its own mask and
	// cpuset. It is an error to name one that it may not use.
	//
	// If neither CPUs nor Workers is set and a processor quota allows less than these CPUs, workers are not
	// pinned: a quota is about time, not place, and several containers would crowd the same first CPUs. Nor are they
	// where the system does not let them be (sched_setaffinity(2) refused), or does not tell about its CPUs (/sys
	// unreadable), unless CPUs are named: then the one is an error, and the other none. The log says why they are not.
	CPUs affinity.Set

	// Placement is the share of the machine that each worker gets. Default PerCPU. Another is an error where workers
	// cannot be pinned, or /sys cannot be read.
	Placement Placement

	// Logger is used by the master and the workers. Default slog.Default(); unless the program has set that, or the
	// writer of package log, it is of the form that GOPHERPACK_LOG in the environment says: "text", as slog.Default()
	// writes, "json", or "journal", with a level in front that systemd's journal understands (sd-daemon(3)) and without
	// a time, which is the default where stderr is the journal (systemd.exec(5), JOURNAL_STREAM). See [FromStdLogger]
	// for others.
	Logger *slog.Logger

	// PrefixOutput has the master write what workers write to stdout and stderr: in whole lines, each with the worker and
	// its process in front ("worker 3[4711]: "), and what the Go runtime writes of a crash in one piece. Lines longer than
	// 64 KiB are cut ("[goes on]"). With GOPHERPACK_LOG=json, a line that is an object of JSON is written as it is, and
	// another as the message of one; with "journal", a level that it begins with goes in front.
	//
	// No worker waits for what reads the log: of what each writes to stdout, and to stderr, 1 MiB may wait in the master,
	// and what comes beyond that is lost, and told ("[12 lines were lost: ...]"); while nothing is read, an upgrade and a
	// stop take up to 5 s longer. An upgrade passes on what workers write. When the master is killed, they write to
	// where it wrote, without the words in front, but programs that they have started get SIGPIPE when they write.
	// Default, false: workers have the master's stdout and stderr.
	PrefixOutput bool

	// ShutdownTimeout is how long a graceful stop may take, DrainDelay included. What is not finished then
	// is cut, and the log says how much. Default 30 s.
	ShutdownTimeout time.Duration

	// ReadyTimeout is how long a worker may take from its start until it accepts connections, OnWorkerStart
	// included; then it is killed. Default 60 s.
	ReadyTimeout time.Duration

	// DrainDelay is how long a worker that drains leaves idle HTTP connections open that it cannot hand over to
	// another, for a next request, which is answered with "Connection: close" (HTTP/2: GOAWAY), so that no client
	// writes to a connection that is just being closed. Handlers of [TCP] are told to end after it, and so are servers
	// that others wrote; gRPC is told at once, except when the pack stops. Default, 0: 5 s, or half of ShutdownTimeout
	// if that is less, when other workers take over, as in a reload; none when the pack stops. If it is set it holds for
	// both.
	//
	// A service that calls another of the same pack needs it when the pack stops: all drain at once, and those that are
	// called go on for this long on connections that are open. So make it longer than the slowest request.
	DrainDelay time.Duration

	// MinReady is how long new workers must serve, in a reload or an upgrade, until the old ones drain: if one of the
	// new fails within that time the old go on. Both accept connections then. Default 1 s.
	MinReady time.Duration

	// Rolling has a reload or an upgrade replace the workers one by one, where memory is short: a new worker starts
	// beside the old one that it replaces, proves itself for MinReady, and the old one drains before the next is
	// started. So there is one process more than workers at most, not twice as many; but it takes a start, MinReady and
	// a drain for each. If one of the new workers fails, those that were replaced are started again, one by one. Where
	// the new version serves other addresses than the old one, the old workers go on until all new ones are ready.
	Rolling bool

	// Steering has the kernel choose the worker for a connection to a TCP address: steer.New() of package ebpf/steer,
	// for the worker on the CPU that received it unless that is busier than others, hung or draining. Default, nil: the
	// kernel's hash of addresses and ports.
	Steering Steering

	// Hang says what is done about a worker that hangs. Default, KillHung: it is killed and replaced.
	Hang HangPolicy

	// HangTimeout is for how long a worker that is ready may give no sign of life, or Probe may fail, until it counts
	// as hung. After half of that others serve its queue, too; with Steering, or if connections wait there, sooner. See
	// [HangPolicy]. How long a worker may take to start is ReadyTimeout, to drain ShutdownTimeout. Default 30 s.
	HangTimeout time.Duration

	// Probe is called in each worker, again and again while it serves, one call at a time: once a second, or ten times
	// in HangTimeout if that is more often. If it returns errors, or does not return, for HangTimeout, the worker
	// counts as hung, unless that is so in all of them: a database that is down is no reason to replace workers. The
	// context ends when HangTimeout has passed. Default, nil: none.
	Probe func(context.Context) error

	// Recycle is when workers are replaced that have served for long. Default: never.
	Recycle Recycle

	// MaxGenerations is how many sets of workers there may be at once: the one that accepts, and those that
	// still drain after reloads. If a reload would make it more, the oldest are killed. Default 4, at least 2.
	MaxGenerations int

	// User runs the workers as another user: "name", "uid", "name:group" or "uid:gid", with the user's supplementary
	// groups if no group is given. They, and what they start, can gain no privileges by executing a file then
	// (no_new_privs, prctl(2); Linux). Their HOME, USER and LOGNAME are the user's; a number without a name has none.
	// The user must have the right to execute the program. The master, which needs the right to change users, stays what
	// it is. Default, "": the master's user.
	User string

	// UnixMode is the permissions of the files of Unix sockets; to connect takes the right to write. Default 0600.
	UnixMode fs.FileMode

	// UnixOwner is whose they are, as User. Default, "": the master's user.
	UnixOwner string

	// Control is called in the master with each listening socket before it is bound, as [net.ListenConfig.Control] is:
	// for options such as IP_FREEBIND, TCP_FASTOPEN, or the size of buffers (setsockopt(2)), which connections inherit,
	// and which workers could not set any more; on Linux also SO_KEEPALIVE, whose times are those of package net otherwise
	// (15 s, 15 s, 9 times; tcp(7)). address is one that is resolved, or a Unix socket's path. An error, or a
	// panic, is why the socket cannot be had. It must return at once. Sockets that an upgrade takes over are what they
	// are: options of the new executable are those of sockets that it opens. Default, nil: none.
	Control func(network, address string, c syscall.RawConn) error

	// WrapListener is called in each worker for each address that it serves, as given to Handle, and returns what is to
	// be accepted from: the listener itself, or one that wraps it, for the PROXY protocol, limits or filters. Whoever is
	// accepted by it counts, and is drained, as without. Its Close must close the listener that it wraps, and its Accept
	// return an error when that one does. A connection of a listener that is wrapped is not handed over to another
	// worker; it is left open for DrainDelay, as one with TLS is. Hooks such as [http.Server.ConnContext] see a
	// connection whose method NetConn returns the one that was accepted; a [*tls.Conn] they see as it is. TLS is better
	// a server's TLSConfig: then sessions are resumed by any worker. Default, nil: none is wrapped.
	WrapListener func(network, address string, l net.Listener) net.Listener

	// Files is the limit of open files (RLIMIT_NOFILE) that workers must have. If it is above the hard limit and may
	// not be raised, Run fails. Default, 0: the hard limit, or one less, which is what the Go runtime gives a program.
	// Programs that a worker starts get the soft limit that the pack was started with, unless the limit had to be raised
	// to Files.
	Files uint64

	// SingleP leaves GOMAXPROCS of workers alone that have one CPU each. Default, false: it is 2 for as long as one
	// goroutine of the worker computes for milliseconds on end, so that others do not wait for that (Go stops it for
	// them after 10 ms only); but not where GOMAXPROCS is in the environment, or once the program has set it.
	SingleP bool

	// NoRebalance leaves connections where they came to. Default, false: idle plaintext HTTP/1.1 connections that are kept
	// alive are handed over from workers that have more than their share of them to those that have fewer, as in a reload:
	// the client does not notice, the server sees the connection end in one worker and begin in another. A worker in which
	// one goroutine computes for milliseconds on end keeps none, or half in a pack of two, until it is calm. Linux only.
	NoRebalance bool

	// TicketKeys is a file with the keys of TLS session tickets, instead of keys that the master makes: for several
	// machines that serve the same, so that a session of one is resumed by the others. Each line is a key of 32 to 80
	// random bytes in base64 ("openssl rand -base64 48"); those that begin with # are none. The first makes tickets, all
	// read them, at most 16. Keys are rotated so: add one at the end, on all machines, then make it the first, and
	// remove the old one when its tickets are of no use any more, after a week at most. A ticket opens only what it is
	// of, as without; so the machines must call Handle with the same address as it is written, such as ":443". See
	// [ShareTickets].
	//
	// Each worker reads the file, and looks once a second whether it has changed. If it is not as it must be, workers
	// that start fail, and those that serve go on with the keys that they have, and the log says so once. Whoever has a
	// key can read recorded sessions of TLS 1.2 that had its tickets, and make tickets, as of any client: only the user
	// of the workers should be able to read the file. Default, "": the master makes keys, and changes them daily.
	TicketKeys string

	// AcceptAtOnce has workers accept a connection as soon as it is established. Default, false: where clients speak
	// first, that is with [net/http.Server], [GRPC] and [TCP] over TLS, and without WrapListener, they accept it when
	// something has come on it, or after a second (TCP_DEFER_ACCEPT, tcp(7); Linux), which saves a new connection 5 to
	// 10 % of its processor time. Timeouts of the server begin then, and so does counting. It costs a stop nothing but
	// for clients that have connected in the second before: what they ask for is waited for.
	AcceptAtOnce bool

	// Inline runs the pack as one process, without master and workers, as GOPHERPACK_INLINE=1 does: for
	// debuggers and tests. A program that asks IsMaster before Run must use the environment, since IsMaster cannot
	// know of this field then.
	Inline bool

	// OnStart is called once per pack, in the master, before the first worker starts: for migrations, or to
	// start what shall run once. An error ends the pack. The context ends when the pack stops. In an upgrade it is
	// called in the new program, in which nothing runs that the old one started, but when the new workers have served
	// for MinReady: migrations that they need are done before the upgrade. An error then undoes it.
	OnStart func(context.Context) error

	// OnUpgrade is called in the master before an upgrade, in the program that is to be replaced. An error calls it off.
	// The context ends when the pack stops.
	OnUpgrade func(context.Context) error

	// OnWorkerStart is called in each worker before it asks for its sockets and is ready. It may call
	// Handle. An error ends the worker. The context ends when the worker stops.
	OnWorkerStart func(context.Context) error

	// OnReopen is called in the master and in each worker at the signal USR1 to the master: for log files to be opened
	// anew after they were renamed. In a worker it runs beside everything else.
	OnReopen func()

	// OnShutdown is called in each worker before it drains, in a reload as when the pack stops, while it still
	// accepts. The context ends when the time for that is over. When the master has died it is called when the worker
	// has closed its sockets, so that the pack can be started anew meanwhile.
	OnShutdown func(context.Context)

	form string // of the log, where the program has no logger of its own
}

// check reports what is wrong with the configuration, and sets the defaults.
func (c *Config) check() error {
	if err := c.setLogger(); err != nil {
		return err
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"ShutdownTimeout", c.ShutdownTimeout}, {"ReadyTimeout", c.ReadyTimeout}, {"DrainDelay", c.DrainDelay},
		{"MinReady", c.MinReady}, {"HangTimeout", c.HangTimeout},
	} {
		if d.value < 0 {
			return fmt.Errorf("%s is negative: %v", d.name, d.value)
		}
	}
	if err := c.Recycle.check(); err != nil {
		return err
	}
	c.HangTimeout, c.UnixMode = cmp.Or(c.HangTimeout, 30*time.Second), cmp.Or(c.UnixMode, 0o600)
	switch {
	case c.Workers < 0:
		return fmt.Errorf("the number of workers is negative: %d", c.Workers)
	case c.Workers > plan.MaxWorkers:
		return fmt.Errorf("%d workers: at most %d", c.Workers, plan.MaxWorkers)
	case !slices.Contains([]Placement{PerCPU, PerCore, PerCache, PerNode, PerPackage}, c.Placement):
		return fmt.Errorf("no such placement: %d", int(c.Placement))
	case c.HangTimeout < minHangTimeout:
		return fmt.Errorf("HangTimeout is %v: at least %v", c.HangTimeout, minHangTimeout)
	case c.UnixMode != c.UnixMode.Perm():
		return fmt.Errorf("UnixMode %v is more than permissions", c.UnixMode)
	case c.Hang < KillHung || c.Hang > IgnoreHung:
		return fmt.Errorf("no such policy for workers that hang: %d", int(c.Hang))
	}
	c.ShutdownTimeout = cmp.Or(c.ShutdownTimeout, 30*time.Second)
	c.ReadyTimeout = cmp.Or(c.ReadyTimeout, 60*time.Second)
	c.MinReady = cmp.Or(c.MinReady, time.Second)
	if c.DrainDelay >= c.ShutdownTimeout {
		return fmt.Errorf("DrainDelay %v leaves nothing of ShutdownTimeout %v", c.DrainDelay, c.ShutdownTimeout)
	}
	if c.MaxGenerations == 0 {
		c.MaxGenerations = 4
	}
	if c.MaxGenerations < 2 {
		return fmt.Errorf("MaxGenerations is %d: a reload needs at least 2", c.MaxGenerations)
	}
	return nil
}

// request returns what is wanted of a plan.
func (c *Config) request() plan.Request {
	return plan.Request{Workers: c.Workers, CPUs: c.CPUs, Placement: c.Placement}
}

// beatEvery returns how often a worker beats.
func (c *Config) beatEvery() time.Duration { return min(c.HangTimeout/10, time.Second) }

// drainDelay returns how long idle connections are left open, by whether other workers take over.
func (c *Config) drainDelay(takenOver bool) time.Duration {
	if c.DrainDelay == 0 && takenOver {
		return min(5*time.Second, c.ShutdownTimeout/2)
	}
	return c.DrainDelay
}

// minHangTimeout is the least that can be told from a machine that is busy.
const minHangTimeout = 100 * time.Millisecond
