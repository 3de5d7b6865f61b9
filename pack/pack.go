// Package pack runs a server as a pack: a master process that serves nothing, and one worker process per CPU,
// pinned to it, each accepting from a socket of its own on the shared address (SO_REUSEPORT).
//
//	srv := &http.Server{Handler: mux}
//	err := pack.ListenAndServeHTTP("tcp", ":8080", srv)
//
// The same program is both. Run, in the process that the user starts, is the master's: it opens the listening
// sockets, starts workers, which are the same executable with the arguments and the environment that it was started
// with itself, and replaces those that die. In a worker, Run asks the master for the sockets and serves. Code before
// Run runs in the master and in every worker; [IsMaster] tells them apart, and [Config] has hooks for what must be done
// once.
//
// The master keeps every socket open for as long as it lives, so a worker that dies loses none of the
// connections that wait in its queue: another worker serves them until its replacement is ready. If the master
// dies, however it dies, the workers finish what they have and end.
//
// HUP reloads: new workers of the same executable start beside the old, on the same sockets, and when all of them
// are ready the old ones drain, and hand their idle HTTP/1.1 connections without TLS over to them. If they do not
// become ready, or one of them fails soon afterwards (MinReady), the old ones go on.
//
// USR2 upgrades: the same with the executable that is on disk now, and then the master becomes that executable, in the
// same process, and goes on with the same sockets and workers.
//
// TTIN and TTOU have one worker more, or one fewer. USR1 has log files opened anew (Config.OnReopen), and writes the
// state of the pack to the log.
//
// Where the terminal is closed in which a pack was started, HUP stops it, unless it was ignored then, as by nohup. In the
// background of a terminal TTIN and TTOU are the terminal's own, and are ignored.
//
// TERM, INT and QUIT stop the pack gracefully: workers stop accepting, finish what is there, and end, at the
// latest after ShutdownTimeout. A second signal ends it at once, but for the same one again within a second. Each
// worker is in a process group of its own, so Ctrl-C reaches the master alone.
//
// Started by systemd with Type=notify-reload, a pack tells it how it is, and WatchdogSec= works. Sockets that systemd
// has passed are served by Handle for their addresses, and with FileDescriptorStoreMax= it keeps those of the pack, should
// the master be killed. All that is told by the environment of the master (sd_notify(3), sd_listen_fds(3)): a program that
// unsets NOTIFY_SOCKET or LISTEN_FDS before Run does without.
//
// Linux has all of it. On macOS and FreeBSD the workers share one listening socket and are not pinned, and there
// are no upgrades. On Windows, and where the environment has GOPHERPACK_INLINE=1, the pack is one process that
// serves by itself.
package pack

import (
	"fmt"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/master"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/pack/internal/worker"
)

// Pack is a pack that has not run yet, or the one that runs.
type Pack struct {
	config  Config
	handles []handle
	watched []*watchedFiles // what workers read
	sealed  atomic.Bool     // Handle comes too late
	ran     atomic.Bool
	master  atomic.Pointer[master.Master] // while it runs, in the master
	service systemd.Service               // what systemd has said, if it has started this process
}

// handle is one call of Handle.
type handle struct {
	endpoint wire.Endpoint
	server   drain.Server        // nil if there is none
	packets  worker.PacketServer // instead, if it is for packets
}

// New returns a pack with the given configuration, which is checked by Run.
func New(c Config) *Pack { return &Pack{config: c} }

// Handle serves network and address with s. It can be called any number of times, for several services in one
// pack, before Run or in OnWorkerStart; later it panics. In the master s is not used and may be nil: a program
// can call Handle in the workers only, and the master learns of the address when a worker asks for it. An
// address that the master does know is opened before the first worker starts.
//
// All workers must call it alike; for an address of each worker's own there is [Pack.HandleOwn]. In a reload or an
// upgrade, addresses may change. They are compared as what they mean: with 127.0.0.1:80 instead of localhost:80 the
// sockets stay. A name is looked up when its address is first asked for.
//
// network is tcp, tcp4, tcp6 or unix. A TCP address is as for [net.Listen]; with port 0 the kernel chooses a port, the
// same for all workers. Nobody else may be listening on it: a second instance of the program is refused. A Unix socket
// whose process is gone is replaced; it is removed when the pack stops. Its file is made as UnixMode and UnixOwner say.
//
// With TLS, a session that began in one worker is resumed by any, for this address only. See [ShareTickets].
//
// An [*http.Server], or a type that embeds one and has no Serve, Shutdown or Close of its own, serves TLS if its
// TLSConfig is set, which must have a certificate, and HTTP/2 with it. It is drained without losing a request, not by
// its own Shutdown alone; what was registered by its RegisterOnShutdown is called when the drain begins, while requests
// still come. Run sets its TLSConfig, Handler, ConnState, ConnContext and TLSNextProto to ones that call those that were
// set, and answers "OPTIONS *" by the handler. Without TLS, the connections that these hooks see, and that Hijack
// returns, are not [*net.TCPConn] but embed it. To these hooks, a connection that was handed over is a new one: what a
// program keeps with a connection does not come along.
func (p *Pack) Handle(network, address string, s Server) {
	p.handle("Handle", wire.Endpoint{Network: network, Address: address}, s)
}

// HandleOwn is [Pack.Handle] for an address of each worker's own, such as of net/http/pprof or of metrics, of which
// those of just this worker are wanted: worker i serves the port of address plus i, or with port 0 any that the kernel
// chooses. network is tcp, tcp4 or tcp6. The log tells the addresses in the order of the workers.
//
// The master keeps these sockets as it does others, so the worker in the place of one that has ended, or that a reload
// or an upgrade replaces, serves the same address; until it is there, connections wait for it. While both are there,
// either answers. Nobody serves such an address for another worker, and idle connections are not handed over.
func (p *Pack) HandleOwn(network, address string, s Server) {
	p.handle("HandleOwn", wire.Endpoint{Network: network, Address: address, Own: true}, s)
}

// HandlePacket serves a UDP socket of network and address with s, as [Pack.Handle] does listeners: each worker has one
// of its own there, and the master keeps them. network is udp, udp4 or udp6, address as for [net.ListenPacket]; with port
// 0 the kernel chooses a port, the same for all workers.
//
// What one sender sends goes to one worker, by a hash of its address and port. In a reload or an upgrade the worker that
// takes the place of another has the same socket, and so the same senders, and whatever is queued there; for a moment
// both read, the old one no more when the new ones are ready. So nothing is lost that the kernel has queued, but what a
// server remembers of a sender does not come along. While a worker is gone, or hangs, what would come to it goes to
// others, and what is queued waits for the next. With more or fewer workers, senders come to other workers.
//
// When the pack stops, what is queued is read, and what comes later is dropped.
func (p *Pack) HandlePacket(network, address string, s PacketServer) {
	h := p.newHandle("HandlePacket", wire.Endpoint{Network: network, Address: address})
	h.packets = s
	p.handles = append(p.handles, h)
}

// newHandle returns a handle of an endpoint, which it tells from others that are written alike.
func (p *Pack) newHandle(method string, e wire.Endpoint) handle {
	if p.sealed.Load() {
		panic(fmt.Sprintf("pack: %s(%q, %q) comes too late: call it before Run or in OnWorkerStart",
			method, e.Network, e.Address))
	}
	for _, h := range p.handles {
		same := h.endpoint
		same.Index = e.Index
		if same == e {
			e.Index++
		}
	}
	return handle{endpoint: e}
}

func (p *Pack) handle(method string, e wire.Endpoint, s Server) {
	h := p.newHandle(method, e)
	srv, ok := s.(*http.Server)
	if e := drain.Embedded(s); e.Serves && e.Stops {
		srv = e.Server
	}
	if srv != nil {
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
