package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// PacketServer serves packet sockets; see package pack.
type PacketServer interface {
	Serve(net.PacketConn) error
	Shutdown(context.Context) error
	Close() error
}

// QUIC is what a worker's QUIC server is told.
type QUIC struct {
	Member int    // of the kernel's group: for connection IDs
	Secret []byte // of the endpoint
}

// QUICSocket is a packet socket for a QUIC server.
type QUICSocket struct {
	net.PacketConn
	QUIC
}

// quicServer is a PacketServer for QUIC.
type quicServer interface{ Begin(QUIC) }

// quicMoment is for how long at least a worker takes new connections of QUIC after others have taken over: their first
// packets have come here. A client that is far away, or slow, has its first request here, too, if it comes within
// DrainDelay.
const quicMoment = 300 * time.Millisecond

// packets is a packet socket that is served. The server reads from it by itself. The master has the socket, too, and so
// has the worker that comes after this one: what is queued there is read by whoever is there.
type packets struct {
	conn     net.PacketConn
	endpoint wire.Endpoint
	server   PacketServer
	told     atomic.Bool   // the worker wants its end
	returned chan struct{} // closed when Serve has
}

// servePackets starts the server of an endpoint.
func (s *service) servePackets(h Handle, conn net.PacketConn) {
	p := &packets{conn: conn, endpoint: h.Endpoint, server: h.Packets, returned: make(chan struct{})}
	s.mu.Lock()
	s.packets = append(s.packets, p)
	s.mu.Unlock()
	go func() {
		defer close(p.returned)
		err := p.server.Serve(conn)
		if !p.told.Load() {
			if err == nil {
				err = errors.New("its Serve returned nil")
			}
			s.broken <- fmt.Errorf("the server for %s stopped serving: %w", h.Endpoint, err)
		}
	}()
}

// allPackets returns the packet sockets that are served.
func (s *service) allPackets() []*packets {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.packets)
}

// lastPackets are those of which nobody reads what is queued when this worker has ended.
func (s *service) lastPackets(o *drainOptions) []*packets {
	return slices.DeleteFunc(s.allPackets(), func(p *packets) bool {
		if p.endpoint.QUIC {
			return true // its connections come to an end by themselves
		}
		if o.quiesce != nil {
			is := s.stayOf(p.endpoint)
			return is.kept && o.orphaned || is.given
		}
		return !slices.Contains(o.unserved, p.endpoint)
	})
}

// emptied waits until everything that is queued has been read from some packet sockets, or ctx ends.
func emptied(ctx context.Context, all []*packets) {
	const look = time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for slices.ContainsFunc(all, func(p *packets) bool { return readable(p.conn) }) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// stopPackets has the servers of packet sockets stop, all at once, and returns what waits for that until ctx ends.
func (s *service) stopPackets(ctx context.Context, o drainOptions) (wait func()) {
	var stopping sync.WaitGroup
	for _, p := range s.allPackets() {
		p.told.Store(true)
		stopping.Go(func() {
			if err := p.drain(ctx, &o, max(quicMoment, s.drainDelay(true))); err != nil {
				s.log.Warn("a packet server did not finish in its drain", "endpoint", p.endpoint.String(), "error", err)
			}
		})
	}
	return stopping.Wait
}

// drain has the server stop when it is time, with QUIC after a moment if others have taken over.
func (p *packets) drain(ctx context.Context, o *drainOptions, moment time.Duration) error {
	switch {
	case !p.endpoint.QUIC:
	case o.takenOver:
		select {
		case <-time.After(moment):
		case <-ctx.Done():
		}
	case o.orphaned: // somebody may wait for the address
		limited, cancel := context.WithTimeout(ctx, orphanLimit)
		defer cancel()
		ctx = limited
	}
	return p.stop(ctx)
}

// stop returns when the server has answered what it has read, or ctx ends, and closes the socket.
func (p *packets) stop(ctx context.Context) error {
	err := p.server.Shutdown(ctx)
	p.conn.SetReadDeadline(time.Unix(1, 0))
	select {
	case <-p.returned:
	case <-ctx.Done():
		err = cmp.Or(err, context.Cause(ctx))
	}
	if err != nil {
		p.server.Close()
	}
	p.conn.Close() // which the server may have done
	return err
}
