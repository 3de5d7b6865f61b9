package pack

import (
	"context"
	"net"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/pack/internal/worker"
	"github.com/gopherpack/gopherpack/reuseport"
)

// HandleQUIC serves QUIC, such as HTTP/3, at a UDP address with s. network is udp, udp4 or udp6, address as for
// [net.ListenPacket]; with port 0 the kernel chooses a port, the same for all workers.
//
// A connection of QUIC cannot change processes, and its client may send from other addresses later. So each worker
// process has a socket of its own, a new one in a reload or an upgrade, and the kernel reads from the connection ID of
// each packet to which process it goes. That takes no privilege (see [reuseport.AttachQUIC]), but Linux: elsewhere there
// can be one worker only. The server must have the IDs from [QUIC].
//
// In a reload or an upgrade new connections come to the new workers from the moment that all are ready. The old ones take
// those that have just begun for DrainDelay, or 300 ms if that is less, then Shutdown is called, and they serve what they
// have until it ends, or ShutdownTimeout. Connections of a worker that is gone, or of a pack whose master was killed,
// are lost; their clients are told by whoever gets their packets (a stateless reset, RFC 9000, 10.3), and connect anew.
func (p *Pack) HandleQUIC(network, address string, s QUICServer) {
	h := p.newHandle("HandleQUIC", wire.Endpoint{Network: network, Address: address, QUIC: true})
	if s != nil {
		h.packets = &quicServer{server: s}
	}
	p.handles = append(p.handles, h)
}

// QUICServer is what a worker serves QUIC with; see [Pack.HandleQUIC].
type QUICServer interface {
	// ServeQUIC serves connections by a socket, an [*net.UDPConn] of this worker process alone. It is called once for each
	// address, and returns when Shutdown or Close begins.
	ServeQUIC(net.PacketConn, *QUIC) error

	// Shutdown takes no new connections, tells clients to go elsewhere, as HTTP/3 can (GOAWAY), finishes what is there, and
	// returns when that is done, or when ctx ends. The socket works until ServeQUIC has returned, too, or ctx has ended.
	Shutdown(context.Context) error

	// Close cuts what is left. It is called if Shutdown returned an error or ServeQUIC has not returned by
	// ShutdownTimeout.
	Close() error
}

// QUIC is what the QUIC server of a worker must be configured with. Its methods are safe for concurrent use.
type QUIC struct {
	member int
	secret []byte
}

// ConnectionID returns a new connection ID, of ConnectionIDLen bytes: a connection must have no others.
func (q *QUIC) ConnectionID() []byte { return reuseport.QUICID(wire.QUICIDKey(q.secret), q.member) }

// ConnectionIDLen is how long they are, in bytes.
func (q *QUIC) ConnectionIDLen() int { return reuseport.QUICIDLen }

// ResetKey returns the key of stateless resets, which all workers share, over reloads and upgrades: by it one tells the
// clients of another, which is gone, that their connections are.
func (q *QUIC) ResetKey() [32]byte { return wire.QUICKey(q.secret, "stateless reset") }

// TokenKey returns the key of tokens by which clients show that they are where they say: those of one worker are good
// for another.
func (q *QUIC) TokenKey() [32]byte { return wire.QUICKey(q.secret, "token") }

// QUICFunc returns a QUICServer that serves by functions.
func QUICFunc(serve func(net.PacketConn, *QUIC) error, shutdown func(context.Context) error) QUICServer {
	return quicFunc{packetFunc{shutdown: shutdown}, serve}
}

type quicFunc struct {
	packetFunc
	serve func(net.PacketConn, *QUIC) error
}

func (s quicFunc) ServeQUIC(p net.PacketConn, q *QUIC) error { return s.serve(p, q) }

// quicServer makes a QUICServer one for package worker.
type quicServer struct {
	server QUICServer
	quic   *QUIC
}

// Begin is called before Serve.
func (s *quicServer) Begin(q worker.QUIC) { s.quic = &QUIC{q.Member, q.Secret} }

func (s *quicServer) Serve(p net.PacketConn) error       { return s.server.ServeQUIC(p, s.quic) }
func (s *quicServer) Shutdown(ctx context.Context) error { return s.server.Shutdown(ctx) }
func (s *quicServer) Close() error                       { return s.server.Close() }
