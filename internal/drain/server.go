// Package drain serves connections in a worker that will have to stop: it stops accepting, finishes what is there, and
// hands idle connections to the worker that takes over, so that no client loses a request.
package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"slices"
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

	// Prepare tells the server where it serves. It may be called several times with the same worker.
	Prepare(Worker)

	// BeginDrain is called when a drain begins, while the server still accepts. delay is how long it may leave
	// connections alone, and handOver whether idle ones can go to another worker.
	BeginDrain(delay time.Duration, handOver bool)

	// Open returns how many connections are open.
	Open() int
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
}

// serverOfOthers is the part of Server that somebody else's server has.
type serverOfOthers interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// Foreign makes a Server of one that somebody else wrote: its own Shutdown drains it. It can neither hand over
// connections nor tell how many it has, so these are counted for it. What is a Server already stays as it is.
func Foreign(s serverOfOthers) Server {
	if s, ok := s.(Server); ok {
		return s
	}
	return &foreign{serverOfOthers: s}
}

type foreign struct {
	serverOfOthers
	conns count
	delay time.Duration // before its Shutdown
}

func (f *foreign) Prepare(w Worker) { f.conns.load = w.Load }
func (f *foreign) Open() int        { return f.conns.open() }

func (f *foreign) Serve(l net.Listener) error {
	if e := Embedded(f.serverOfOthers); e.Server != nil && e.Serves && wantsTLS(e.TLSConfig) {
		return fmt.Errorf("the Serve of %T is that of the http.Server in it, which serves no TLS although there is a "+
			"TLSConfig: pass that http.Server itself, or by pack.Func a function that serves TLS", f.serverOfOthers)
	}
	return f.serverOfOthers.Serve(counted(l, &f.conns))
}

// BeginDrain leaves connections alone for the delay: nobody knows which of them are idle, and Shutdown may close those.
// A server that tells its clients to go elsewhere, as gRPC does, needs none. If there is an http.Server in it, what was
// registered with that is called now, not after the delay.
func (f *foreign) BeginDrain(delay time.Duration, _ bool) {
	if _, tells := f.serverOfOthers.(interface{ GracefulStop() }); !tells {
		f.delay = delay
	}
	if e := Embedded(f.serverOfOthers); e.Server != nil {
		callHooks(e.Server)
	}
}

// Shutdown is the server's own, after connections were given the time to end by themselves. Not every Shutdown waits
// for the connections, and so this does.
func (f *foreign) Shutdown(ctx context.Context) error {
	alone, cancel := context.WithTimeout(ctx, f.delay)
	defer cancel()
	f.conns.wait(alone)
	// A connection may be on its way from Accept to where the server looks after it: grpc closes one of which it finds
	// then that it is to stop.
	begun, cancel := context.WithTimeout(ctx, newConnGrace)
	defer cancel()
	waitForNone(begun, f.conns.untouched)
	if err := f.serverOfOthers.Shutdown(ctx); err != nil {
		return err
	}
	return f.conns.wait(ctx)
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
