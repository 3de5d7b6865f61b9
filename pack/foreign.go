package pack

import (
	"net"
	"sync"
	"time"
)

// drainable is a Server as this package drains it.
type drainable interface {
	Server

	// prepare is called before Serve, for each endpoint that the server serves.
	prepare(*service)

	// beginDrain is called when a drain begins, while the server still accepts. delay is how long it may leave
	// connections alone, and handOver whether idle ones can go to another worker.
	beginDrain(delay time.Duration, handOver bool)

	// open returns how many connections are open.
	open() int
}

// makeDrainable returns what serves for a Server that somebody else wrote: its own Shutdown drains it.
func makeDrainable(s Server) drainable {
	if d, ok := s.(drainable); ok {
		return d
	}
	return &foreign{Server: s}
}

// foreign is a server that can neither hand over connections nor tell how many it has.
type foreign struct {
	Server
	count openConns
}

func (f *foreign) Serve(l net.Listener) error     { return f.Server.Serve(counting{l, &f.count}) }
func (f *foreign) prepare(s *service)             { f.count.reporter = &s.reporter }
func (f *foreign) beginDrain(time.Duration, bool) {}
func (f *foreign) open() int                      { return f.count.open() }

// counting is a listener that counts its open connections.
type counting struct {
	net.Listener
	count *openConns
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.count.add(1)
	closed := sync.OnceFunc(func() { l.count.add(-1) })
	// Embedding the concrete type keeps ReadFrom (sendfile, splice), SyscallConn, CloseWrite and the rest.
	switch c := c.(type) {
	case *net.TCPConn:
		return &countedTCP{c, closed}, nil
	case *net.UnixConn:
		return &countedUnix{c, closed}, nil
	default:
		return &countedConn{c, closed}, nil
	}
}

type countedTCP struct {
	*net.TCPConn
	closed func()
}

func (c *countedTCP) Close() error {
	c.closed()
	return c.TCPConn.Close()
}

type countedUnix struct {
	*net.UnixConn
	closed func()
}

func (c *countedUnix) Close() error {
	c.closed()
	return c.UnixConn.Close()
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
