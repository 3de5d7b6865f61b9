// Package drain serves connections in a worker that will have to stop: it stops accepting, finishes what is there, and
// hands idle connections to the worker that takes over, so that no client loses a request.
package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// Server is a server that can be drained. Its calls come in this order: Prepare, Serve for each listener, BeginDrain;
// then the listeners are closed, and when every Serve has returned, Shutdown, and Close if that gives up.
type Server interface {
	// Serve accepts connections and serves them until the listener is closed. It can be called with several listeners.
	Serve(net.Listener) error

	// Shutdown finishes what is there and returns when that is done, or when ctx ends.
	Shutdown(context.Context) error

	// Close cuts what is left.
	Close() error

	// ClientsBegin reports whether it is clients that speak first, so that a connection is of no use before.
	ClientsBegin() bool

	// Prepare tells the server where it serves. It may be called several times with the same worker.
	Prepare(Worker)

	// BeginDrain is called when a drain begins, while the server still accepts. delay is how long it may leave
	// connections alone, and handOver whether idle ones can go to another worker.
	BeginDrain(delay time.Duration, handOver bool)

	// Open returns how many connections are open.
	Open() int

	// Unfinished returns how many of them Close would cut off from something, as far as one can tell: not those that are
	// between a response and the next request.
	Unfinished() int
}

// Worker is what a server needs to know of the process that it serves in.
type Worker struct {
	Log     *slog.Logger
	Load    Load
	Tickets func(*tls.Config) *tls.Config // returns a configuration whose session tickets other workers can read
}

// Load is told what the worker has to do. Its methods are safe for concurrent use.
type Load interface {
	Open(more int)      // so many more connections are open; fewer if it is negative
	Served(more uint64) // requests, of servers that tell of them, and connections of others
	Movable(more int)   // so many more connections are kept alive that can be handed over

	// Sheds reports whether one of those is to be handed over now, since other workers have less to do, or can do more,
	// and takes it for done. Stays takes that back.
	Sheds() bool
	Stays()
}

// Mover is a Server whose idle connections can be handed over to another worker.
type Mover interface {
	Server

	// CanMove reports whether they can be.
	CanMove() bool

	// Movable returns a listener for Serve whose connections are handed over by pass when they are idle and their server
	// drains, unless bound is set: then nobody else will serve them. It must be asked for only if CanMove. What Accept of
	// l returns was handed over if it is made by Arrived.
	Movable(l net.Listener, pass func(syscall.Conn) error, bound *atomic.Bool) net.Listener

	// Shed hands over connections that are idle for as long as the Load says so. What else it says is for those that
	// become idle next. keepBusy leaves out those for which the server works now, until the next call.
	Shed(keepBusy bool)

	// EndHandover ends handing over, and returns when nothing is on its way any more, or ctx has ended.
	EndHandover(ctx context.Context)
}

// wantsTLS reports whether a server with such a configuration is to serve TLS. Package http2's ConfigureServer leaves
// one, for HTTP/2 without TLS, too, that nobody else has filled in.
func wantsTLS(c *tls.Config) bool {
	if c == nil {
		return false
	}
	if !slices.Contains(c.NextProtos, "h2") {
		return true
	}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		switch f := v.Type().Field(i); f.Name {
		case "NextProtos", "CipherSuites", "PreferServerCipherSuites":
		default:
			if f.IsExported() && !v.Field(i).IsZero() {
				return true
			}
		}
	}
	return false
}

// checkCertificate finds the most common mistake before a client does.
func checkCertificate(c *tls.Config) error {
	if len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		return errors.New("its TLS configuration has no certificate")
	}
	return nil
}
