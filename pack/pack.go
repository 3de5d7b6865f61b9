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
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/gopherpack/gopherpack/internal/drain"
)

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
	server   drain.Server // nil if there is none
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
// refused. A Unix socket whose process is gone is replaced; it is removed when the pack stops. Its file is made as UnixMode and UnixOwner say.
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
		h.server = drain.Foreign(s)
	}
	p.handles = append(p.handles, h)
}

// httpServer returns the one wrapper of a server, which may be handled at several addresses.
func (p *Pack) httpServer(srv *http.Server) *drain.HTTP {
	for _, h := range p.handles {
		if w, ok := h.server.(*drain.HTTP); ok && w.Server == srv {
			return w
		}
	}
	return drain.NewHTTP(srv)
}

// Run runs the pack until ctx ends or a signal stops it, and returns nil after a graceful stop. It can be
// called once.
//
// In the master an error says why the pack could not start, or that it was forced to stop. In a worker Run
// returns nil when the worker has drained, and also when it could not serve: it has told the master why, whose
// log and Run say it once.
//
// While it runs, the process does not end when what reads its stdout or stderr is gone (SIGPIPE): those writes fail.
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
	defer outliveReaders()()
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
