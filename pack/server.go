package pack

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"

	"github.com/gopherpack/gopherpack/internal/drain"
	"github.com/gopherpack/gopherpack/pack/internal/worker"
)

// Server is what a worker serves with. An [*http.Server] is one as it is, and is treated specially; see
// [Pack.Handle].
type Server interface {
	// Serve accepts connections and serves them until Accept fails with [net.ErrClosed], or Shutdown or Close begins. It
	// is called once for each address. In a drain the socket is closed long before Accept fails: that is when Shutdown
	// closes the listener, or has returned, or has taken a second, since some servers cut their connections then, and
	// others take Shutdown for nothing. The listener is none of package net's types; it has their method SyscallConn.
	Serve(net.Listener) error

	// Shutdown finishes what is there and returns when that is done, or when ctx ends. It is called when idle
	// connections have been handed over, or had DrainDelay to end by themselves, and no client waits for an answer, as
	// far as one can tell, or each has got one. Connections that are open when Shutdown returns nil are waited for; if
	// it returns an error they are cut, and counted as such.
	Shutdown(context.Context) error

	// Close cuts what is left. It is called if Shutdown returned an error.
	Close() error
}

// GRPCServer is the part of a *grpc.Server that [GRPC] needs.
type GRPCServer interface {
	Serve(net.Listener) error
	GracefulStop()
	Stop()
}

// GRPC returns a Server that serves with s, a *grpc.Server. A graceful stop tells clients to go elsewhere
// (GOAWAY) and lets running calls finish; at the deadline connections are cut, and handlers that ignore their
// context are not waited for. Handlers of streams that go on for long learn from [Draining] when to end them.
func GRPC(s GRPCServer) Server { return grpcServer{s} }

type grpcServer struct{ GRPCServer }

// ClientsBegin says that clients of gRPC speak first: HTTP/2 has them do so.
func (grpcServer) ClientsBegin() {}

func (s grpcServer) Shutdown(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.GracefulStop()
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close does not wait for Stop, since Stop waits for handlers.
func (s grpcServer) Close() error {
	go s.Stop()
	return nil
}

// Func returns a Server for a framework that has functions of its own: serve must return when Accept fails with
// [net.ErrClosed], shutdown finishes what is there, and may be nil if that takes no more than to wait for connections
// to end. See [Server] for when each is called.
//
//	pack.Func(srv.Serve, srv.ShutdownWithContext) // fasthttp
//	pack.Func(engine.RunListener, nil)            // gin
//
// If what is served turns out to be plaintext HTTP/1.1, idle connections are handed over to the workers that take over,
// whatever the framework, as those of an [*http.Server] are; where nobody takes over, as when the pack stops, the field
// "Connection: close" is added to their next response. To tell when they are idle, the pack follows requests and
// responses by their heads. It gives up on a connection at the first that is not plain: one that upgrades or closes it,
// has trailers, or could be understood in several ways.
func Func(serve func(net.Listener) error, shutdown func(context.Context) error) Server {
	return funcServer{serve, shutdown}
}

type funcServer struct {
	serve    func(net.Listener) error
	shutdown func(context.Context) error
}

func (s funcServer) Serve(l net.Listener) error { return s.serve(l) }

func (s funcServer) Shutdown(ctx context.Context) error {
	if s.shutdown == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- s.shutdown(ctx) }() // not every framework minds its context
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s funcServer) Close() error { return nil } // the end of the worker cuts

// PacketServer is what a worker serves a packet socket with; see [Pack.HandlePacket].
type PacketServer interface {
	// Serve reads from the socket, an [*net.UDPConn] of this worker, and answers by it. It is called once for each address,
	// and returns when Shutdown or Close begins, and what it has read is answered.
	Serve(net.PacketConn) error

	// Shutdown has Serve read no more, and returns when what was read is answered, or when ctx ends. It is called when
	// another worker reads from the socket, or nothing is queued there any more and nothing comes. When it has returned,
	// reads fail with [os.ErrDeadlineExceeded], in case that Serve still reads, and the pack closes the socket when Serve
	// has returned.
	Shutdown(context.Context) error

	// Close ends what is left, if Shutdown returned an error or Serve has not returned by ShutdownTimeout.
	Close() error
}

// PacketFunc returns a PacketServer that serves by functions: serve must read until that fails, answer what it has read,
// and return; shutdown has it do so, and may be nil if serve leaves read deadlines alone, since a read then fails with
// [os.ErrDeadlineExceeded], while writes go on:
//
//	pack.PacketFunc(func(conn net.PacketConn) error {
//		buf := make([]byte, 1500)
//		for {
//			n, from, err := conn.ReadFrom(buf)
//			if err != nil {
//				return err
//			}
//			conn.WriteTo(answer(buf[:n]), from)
//		}
//	}, nil)
func PacketFunc(serve func(net.PacketConn) error, shutdown func(context.Context) error) PacketServer {
	return packetFunc{serve, shutdown}
}

type packetFunc struct {
	serve    func(net.PacketConn) error
	shutdown func(context.Context) error
}

func (s packetFunc) Serve(p net.PacketConn) error { return s.serve(p) }

func (s packetFunc) Shutdown(ctx context.Context) error {
	return funcServer{shutdown: s.shutdown}.Shutdown(ctx)
}

func (s packetFunc) Close() error { return nil } // the end of the worker ends the rest

// TCP returns a Server that calls handler with each connection, in a goroutine of its own, over TLS if
// tlsConfig is not nil, and closes the connection when handler returns.
//
// The context ends when the worker drains, but for connections that were just accepted, and in a reload after
// DrainDelay, so that short exchanges end by themselves. The handler should then finish the exchange that it is
// in and return. Connections of handlers that have not returned at the deadline are cut. A panic in a handler is
// logged with its stack and ends that connection only.
func TCP(tlsConfig *tls.Config, handler func(context.Context, net.Conn)) Server {
	return drain.NewTCP(tlsConfig, handler)
}

// ShareTickets returns a copy of a server's TLS configuration whose session tickets are made and read with keys that
// all workers of the pack share, and that the master makes and changes daily: a client that comes back resumes its
// session at any worker, also after a reload or an upgrade. With keys of each process's own, it does at one in N.
//
// [Pack.Handle] does so for an [*http.Server] and for [TCP]. It is for TLS that others do, with [GRPC] or [Func]:
//
//	grpc.NewServer(grpc.Creds(credentials.NewTLS(pack.ShareTickets("api", config))))
//
// A client with a ticket is not asked for its certificate again, so a ticket opens only the service that it is of: that
// of the same name, or with Handle of the same address, which demands the same of clients. To others it is none, and
// their handshake is a full one. What VerifyPeerCertificate says is asked again when a session is resumed, and ends the
// connection if it is an error: after a reload it may accept other certificates. (That a certificate is of one of
// ClientCAs, and what VerifyConnection says, package crypto/tls looks at each time.)
//
// Configurations that GetConfigForClient returns are treated likewise. One with SessionTicketsDisabled, WrapSession or
// UnwrapSession is left alone; one with keys of its own sets these two to its EncryptTicket and DecryptTicket. For keys
// that several machines share there is Config.TicketKeys. The configuration must not be changed afterwards.
func ShareTickets(service string, c *tls.Config) *tls.Config {
	return tickets.Share("service "+service, c)
}

// tickets are those of this process.
var tickets = worker.NewTickets()

// ListenAndServeHTTP serves HTTP with srv on one pinned worker per CPU: in the master it supervises the
// workers, in a worker it serves. If srv.TLSConfig is set it serves TLS. It is New(Config{}) with one Handle and Run.
//
// It returns nil after a graceful stop, unlike ListenAndServe of net/http: log.Fatal(pack.ListenAndServeHTTP(...))
// would print <nil> then, and have the master and each worker exit with status 1. Ask whether there is an error.
func ListenAndServeHTTP(network, address string, srv *http.Server) error {
	return listenAndServe(network, address, srv)
}

// ListenAndServeTCP serves raw connections with handler, each in a goroutine of its own, over TLS if tlsConfig
// is not nil. The connection is closed when handler returns. When the worker stops, handler reads the end of
// the stream ([io.EOF]) once it has read what arrived before. Use [TCP] to be told by a context instead. It returns nil
// after a graceful stop; see [ListenAndServeHTTP].
func ListenAndServeTCP(network, address string, tlsConfig *tls.Config, handler func(net.Conn)) error {
	return listenAndServe(network, address, TCP(tlsConfig, func(ctx context.Context, c net.Conn) {
		defer context.AfterFunc(ctx, func() { drain.CloseRead(c) })()
		handler(c)
	}))
}

// ListenAndServeGRPC serves gRPC with srv, a *grpc.Server, and returns nil after a graceful stop; see
// [ListenAndServeHTTP].
func ListenAndServeGRPC(network, address string, srv GRPCServer) error {
	return listenAndServe(network, address, GRPC(srv))
}

func listenAndServe(network, address string, s Server) error {
	p := New(Config{})
	p.Handle(network, address, s)
	return p.Run(context.Background())
}
