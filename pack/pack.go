// Package pack runs a server as a pack: a master process that serves nothing, and one worker process per CPU,
// pinned to it, each accepting from a socket of its own on the shared address (SO_REUSEPORT).
//
//	srv := &http.Server{Handler: mux}
//	err := pack.ListenAndServeHTTP("tcp", ":8080", srv)
//
// The same program is both. Run, in the process that the user starts, is the master's: it opens the listening
// sockets, starts workers, which are the same executable with the same arguments, and replaces those that
// die. In a worker, Run asks the master for the sockets and serves. Code before Run runs in the master and in
// every worker; [IsMaster] tells them apart, and [Config] has hooks for what must be done once.
//
// The master keeps every socket open for as long as it lives, so a worker that dies loses none of the
// connections that wait in its queue: they wait for its replacement. If the master dies, however it dies, the
// workers finish what they have and end.
//
// HUP reloads: new workers of the same executable start beside the old, on the same sockets, and when all of them
// are ready the old ones drain, and hand their idle HTTP/1.1 connections without TLS over to them. If they do not
// become ready, the old ones go on.
//
// USR2 upgrades: the same with the executable that is on disk now, and then the master becomes that executable, in the
// same process, and goes on with the same sockets and workers.
//
// TTIN and TTOU have one worker more, or one fewer. USR1 has log files opened anew (Config.OnReopen), and writes the state of the
// pack to the log.
//
// TERM, INT and QUIT stop the pack gracefully: workers stop accepting, finish what is there, and end, at the
// latest after ShutdownTimeout. A second signal ends it at once. Each worker is in a process group of its own,
// so Ctrl-C reaches the master alone.
//
// Linux has all of it. On macOS and FreeBSD the workers share one listening socket and are not pinned. On
// Windows, and where the environment has GOPHERPACK_INLINE=1, the pack is one process that serves by itself.
package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
)

// Placement says how large a share of the machine each worker gets.
type Placement = affinity.Policy

const (
	PerCPU   = affinity.PerCPU   // one worker per CPU, pinned to it; each has GOMAXPROCS 1
	PerCore  = affinity.PerCore  // one per physical core, on its hardware threads
	PerCache = affinity.PerCache // one per last-level cache, on the CPUs that share it
	PerNode  = affinity.PerNode  // one per NUMA node, on its CPUs
)

// Config is what can be set about a pack. The zero value is a good default.
//
// Some fields can be overridden by the environment of the master, for operators: GOPHERPACK_WORKERS,
// GOPHERPACK_CPUS ("0-3,8"), GOPHERPACK_PLACEMENT ("cpu", "core", "cache", "node") and GOPHERPACK_INLINE ("1").
type Config struct {
	// Workers is the number of workers. Default, 0: as many as the machine has shares of the size of
	// Placement among the CPUs that may be used, and not more than the processor quota of the control
	// groups, or GOMAXPROCS in the environment, allows.
	Workers int

	// CPUs are those to use. Default, the empty set: all that this process may use, by its own mask and
	// cpuset. It is an error to name one that it may not use.
	//
	// If neither CPUs nor Workers is set and a processor quota allows less than these CPUs, workers are not
	// pinned: a quota is about time, not place, and several containers would crowd the same first CPUs.
	CPUs affinity.Set

	// Placement is the share of the machine that each worker gets. Default PerCPU.
	Placement Placement

	// Logger is used by the master and the workers. Default slog.Default(). See [FromStdLogger] for others.
	Logger *slog.Logger

	// ShutdownTimeout is how long a graceful stop may take, DrainDelay included. What is not finished then
	// is cut, and the log says how much. Default 30 s.
	ShutdownTimeout time.Duration

	// ReadyTimeout is how long a worker may take from its start until it accepts connections, OnWorkerStart
	// included; then it is killed. Default 60 s.
	ReadyTimeout time.Duration

	// DrainDelay is how long a worker that drains leaves idle HTTP connections open that it cannot hand over
	// to another, for a next request, which is answered with "Connection: close" (HTTP/2: GOAWAY), so that no
	// client writes to a connection that is just being closed. Handlers of [TCP] are told to end after it. Default, 0: 5 s, or half of ShutdownTimeout if that is less, when other workers take
	// over, as in a reload; none when the pack stops. If it is set it holds for both.
	DrainDelay time.Duration

	// Canary is how long new workers must serve, in a reload or an upgrade, until the old ones drain: if one of the
	// new fails within that time the old go on. Both accept connections then. Default 1 s.
	Canary time.Duration

	// Rolling has a reload or an upgrade replace the workers one by one, where memory is short: a new worker starts beside
	// the old one that it replaces, proves itself for Canary, and the old one drains before the next is started. So
	// there is one process more than workers at most, not twice as many; but it takes a start, Canary and a drain for
	// each. If one of the new workers fails, those that were replaced are started again, one by one. Where the new
	// version serves other addresses than the old one, the old workers go on until all new ones are ready.
	Rolling bool

	// Steering has the kernel choose the worker for a connection to a TCP address: steer.New() of package ebpf/steer, for
	// the worker on the CPU that received it unless that is busier than others, hung or draining. Default, nil: the
	// kernel's hash of addresses and ports.
	Steering Steering

	// Hang says what is done about a worker that hangs. Default, KillHung: it is killed and replaced.
	Hang HangPolicy

	// HangTimeout is for how long a worker that is ready may give no sign of life, or Probe may fail, until it counts as hung.
	// After half of that others serve its queue, too; with Steering, sooner. See [HangPolicy]. How long a worker may take
	// to start is ReadyTimeout, to drain ShutdownTimeout. Default 30 s.
	HangTimeout time.Duration

	// Probe is called in each worker, again and again while it serves, one call at a time: once a second, or ten times in
	// HangTimeout if that is more often. If it returns errors, or does not return, for HangTimeout, the worker counts as hung,
	// unless that is so in all of them: a database that is down is no reason to replace workers. The context ends
	// when HangTimeout has passed. Default, nil: none.
	Probe func(context.Context) error

	// Recycle is when workers are replaced that have served for long. Default: never.
	Recycle Recycle

	// MaxGenerations is how many sets of workers there may be at once: the one that accepts, and those that
	// still drain after reloads. If a reload would make it more, the oldest are killed. Default 4, at least 2.
	MaxGenerations int

	// User runs the workers as another user: "name", "uid", "name:group" or "uid:gid", with the user's
	// supplementary groups if no group is given. They, and what they start, can gain no privileges by executing a file then
	// (no_new_privs, prctl(2); Linux). The master, which needs the right to do so, stays what it is. Default, "": the
	// master's user.
	User string

	// UnixMode is the permissions of the files of Unix sockets; to connect takes the right to write. Default 0600.
	UnixMode fs.FileMode

	// UnixOwner is whose they are, as User. Default, "": the master's user.
	UnixOwner string

	// Files is the limit of open files (RLIMIT_NOFILE) that workers must have. If it is above the hard
	// limit and may not be raised, Run fails. Default, 0: the hard limit.
	Files uint64

	// Inline runs the pack as one process, without master and workers, as GOPHERPACK_INLINE=1 does: for
	// debuggers and tests. A program that asks IsMaster must use the environment, since IsMaster cannot
	// know of this field.
	Inline bool

	// OnStart is called once per pack, in the master, before the first worker starts: for migrations, or to
	// start what shall run once. An error ends the pack. The context ends when the pack stops. After an upgrade it
	// is called in the new program, in which nothing runs that the old one started; an error then undoes the upgrade.
	OnStart func(context.Context) error

	// OnUpgrade is called in the master before an upgrade. An error calls it off. The context ends when the pack stops.
	OnUpgrade func(context.Context) error

	// OnWorkerStart is called in each worker before it asks for its sockets and is ready. It may call
	// Handle. An error ends the worker. The context ends when the worker stops.
	OnWorkerStart func(context.Context) error

	// OnReopen is called in the master and in each worker at the signal USR1 to the master: for log files to be opened anew after
	// they were renamed. In a worker it runs beside everything else.
	OnReopen func()

	// OnShutdown is called in each worker before it drains, in a reload as when the pack stops, while it still
	// accepts. The context ends when the time for that is over.
	OnShutdown func(context.Context)
}

// Pack is a pack that has not run yet, or the one that runs.
type Pack struct {
	config  Config
	handles []handle
	sealed  atomic.Bool // Handle comes too late
	ran     atomic.Bool
	master  atomic.Pointer[masterState] // while it runs, in the master
}

// handle is one call of Handle.
type handle struct {
	endpoint endpoint
	server   drainable // nil if there is none
}

// New returns a pack with the given configuration, which is checked by Run.
func New(c Config) *Pack { return &Pack{config: c} }

// Handle serves network and address with s. It can be called any number of times, for several services in one
// pack, before Run or in OnWorkerStart; later it panics. In the master s is not used and may be nil: a program
// can call Handle in the workers only, and the master learns of the address when a worker asks for it. An
// address that the master does know is opened before the first worker starts.
//
// network is tcp, tcp4, tcp6 or unix. A TCP address is as for [net.Listen]; with port 0 the kernel chooses a
// port, the same for all workers. Nobody else may be listening on it: a second instance of the program is
// refused. A Unix socket whose process is gone is replaced; it is removed when the pack stops.
//
// With TLS, all workers make and read session tickets with the same keys, which the master makes and changes. A
// configuration that has WrapSession or UnwrapSession, or wants no tickets, is left alone; one with keys of its
// own, shared among several machines say, sets these two to its EncryptTicket and DecryptTicket.
//
// An [*http.Server] serves TLS if its TLSConfig is set, which must have a certificate, and HTTP/2 with it. It
// is drained without losing a request, not by its own Shutdown alone. Run sets its TLSConfig, Handler, ConnState
// and ConnContext to ones that call those that were set; without TLS, the connections that these hooks see are
// not [*net.TCPConn] but embed it.
func (p *Pack) Handle(network, address string, s Server) {
	if p.sealed.Load() {
		panic(fmt.Sprintf("pack: Handle(%q, %q) after the worker's start; call it before Run or in OnWorkerStart", network, address))
	}
	e := endpoint{Network: network, Address: address}
	for _, h := range p.handles {
		if h.endpoint.Network == network && h.endpoint.Address == address {
			e.Index++
		}
	}
	h := handle{endpoint: e}
	if srv, ok := s.(*http.Server); ok && srv != nil {
		h.server = p.httpServer(srv)
	} else if s != nil && !ok {
		h.server = makeDrainable(s)
	}
	p.handles = append(p.handles, h)
}

// httpServer returns the one wrapper of a server, which may be handled at several addresses.
func (p *Pack) httpServer(srv *http.Server) *httpServer {
	for _, h := range p.handles {
		if w, ok := h.server.(*httpServer); ok && w.Server == srv {
			return w
		}
	}
	return newHTTPServer(srv)
}

// Run runs the pack until ctx ends or a signal stops it, and returns nil after a graceful stop. It can be
// called once.
//
// In the master an error says why the pack could not start, or that it was forced to stop. In a worker Run
// returns nil when the worker has drained, and also when it could not serve: it has told the master why, whose
// log and Run say it once.
func (p *Pack) Run(ctx context.Context) error {
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

func (p *Pack) run(ctx context.Context) error {
	if !p.ran.CompareAndSwap(false, true) {
		return errors.New("Run was called before")
	}
	role := thisProcess()
	err := p.checkAll(role)
	switch {
	case role.rehearsal != nil:
		p.rehearse(role.rehearsal, err)
	case role.succession != nil:
		return p.runMaster(ctx, role, err)
	case err != nil:
		return err
	}
	switch {
	case role.kind == worker:
		return p.runWorker(ctx, role)
	case role.kind == inline || p.config.Inline:
		return p.runInline(ctx)
	default:
		return p.runMaster(ctx, role, nil)
	}
}

// checkAll reports what is wrong with the pack, and sets the defaults of the configuration.
func (p *Pack) checkAll(role role) error {
	if err := p.checkHandles(); err != nil {
		return err
	}
	if role.kind == master {
		if err := p.config.overrideByEnv(); err != nil {
			return err
		}
	}
	return p.config.check()
}

// Reload does what the signal HUP does, and returns when the new workers have taken over, or why they have not.
// It can be called in the master while Run runs. While another reload is in progress it is refused.
func (p *Pack) Reload(ctx context.Context) error {
	m := p.master.Load()
	if m == nil {
		return errors.New("pack: reload: this process does not run a pack as its master")
	}
	if err := m.reload(ctx); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// SetWorkers changes the number of workers, as the signals TTIN (one more) and TTOU (one fewer) do, and returns when the new
// ones have taken over, or why they have not. All workers are replaced, as in a reload, since each gets another share of
// the CPUs; nothing is lost. The number holds until the pack stops, also after upgrades. It can be called in the master while
// Run runs. While a reload or an upgrade is in progress it is refused.
func (p *Pack) SetWorkers(ctx context.Context, n int) error {
	m := p.master.Load()
	if m == nil {
		return errors.New("pack: scaling: this process does not run a pack as its master")
	}
	if err := m.scale(ctx, func(int) int { return n }); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// Upgrade does what the signal USR2 does. If it succeeds it does not return: this program is replaced, in this process,
// by the executable that is on disk now, which goes on with the new workers. Otherwise it returns why, and the old
// workers go on. It can be called in the master while Run runs. While a reload or another upgrade is in progress it is
// refused.
//
// Before anything is replaced, the new executable is started once to show that it can be the master: it runs as far as Run,
// for which IsMaster is true, and exits there. So what only the master that serves may do, such as opening a port of its
// own, belongs into OnStart, not before Run. Linux only; elsewhere the error matches [errors.ErrUnsupported].
func (p *Pack) Upgrade(ctx context.Context) error {
	m := p.master.Load()
	if m == nil {
		return errors.New("pack: upgrade: this process does not run a pack as its master")
	}
	return fmt.Errorf("pack: %w", m.upgrade(ctx))
}

// checkHandles finds addresses that cannot be opened twice.
func (p *Pack) checkHandles() error {
	for _, h := range p.handles {
		_, port, _ := net.SplitHostPort(h.endpoint.Address)
		if anyPort := h.endpoint.Network != "unix" && port == "0"; h.endpoint.Index > 0 && !anyPort {
			return fmt.Errorf("%s is handled twice", h.endpoint)
		}
	}
	return nil
}

// check reports what is wrong with the configuration, and sets the defaults.
func (c *Config) check() error {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"ShutdownTimeout", c.ShutdownTimeout}, {"ReadyTimeout", c.ReadyTimeout}, {"DrainDelay", c.DrainDelay}, {"Canary", c.Canary}, {"HangTimeout", c.HangTimeout}} {
		if d.value < 0 {
			return fmt.Errorf("%s is negative: %v", d.name, d.value)
		}
	}
	if err := c.Recycle.check(); err != nil {
		return err
	}
	switch {
	case c.Workers < 0:
		return fmt.Errorf("the number of workers is negative: %d", c.Workers)
	case c.Workers > maxWorkers:
		return fmt.Errorf("%d workers: at most %d", c.Workers, maxWorkers)
	case !slices.Contains([]Placement{PerCPU, PerCore, PerCache, PerNode}, c.Placement):
		return fmt.Errorf("no such placement: %d", int(c.Placement))
	case c.UnixMode != c.UnixMode.Perm():
		return fmt.Errorf("UnixMode %v is more than permissions", c.UnixMode)
	case c.Hang < KillHung || c.Hang > IgnoreHung:
		return fmt.Errorf("no such policy for workers that hang: %d", int(c.Hang))
	}
	c.ShutdownTimeout = cmp.Or(c.ShutdownTimeout, 30*time.Second)
	c.ReadyTimeout = cmp.Or(c.ReadyTimeout, 60*time.Second)
	c.Canary = cmp.Or(c.Canary, time.Second)
	c.UnixMode = cmp.Or(c.UnixMode, 0o600)
	c.HangTimeout = cmp.Or(c.HangTimeout, 30*time.Second)
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

// socketFiles returns how the files of Unix sockets are made.
func (c *Config) socketFiles() socketFiles { return socketFiles{mode: c.UnixMode, owner: c.UnixOwner} }

// drainDelay returns how long idle connections are left open, by whether other workers take over.
func (c *Config) drainDelay(takenOver bool) time.Duration {
	if c.DrainDelay == 0 && takenOver {
		return min(5*time.Second, c.ShutdownTimeout/2)
	}
	return c.DrainDelay
}

// maxWorkers is a sanity check; the kernel's own limit for sockets on one address is 65535.
const maxWorkers = 4096
