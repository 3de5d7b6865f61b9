//go:build unix

package pack_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/pack"
)

// atProgram serves at what a file says now: lines of a network and an address, after "own" if each worker is to have
// its own, and after "greet" if it says hello to clients first; ID stands for the worker's.
func atProgram() error {
	c, _ := configFlags()
	name := flag.String("config", "", "")
	hold := flag.String("hold", "", "") // a file: OnShutdown does not return as long as it is there
	free := flag.Bool("freebind", false, "")
	inMaster := flag.String("master", "", "") // an address that only the master knows of
	flag.Parse()
	if *hold != "" {
		c.OnShutdown = func(context.Context) {
			for {
				if _, err := os.Stat(*hold); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	if *free {
		c.Control = freeBind
	}
	p := pack.New(*c)
	if pack.IsMaster() {
		if *inMaster != "" {
			p.Handle("tcp", *inMaster, nil)
		}
		return p.Run(context.Background())
	}
	config, err := os.ReadFile(*name)
	if err != nil {
		return err
	}
	id, _ := pack.WorkerID()
	srv := &http.Server{Handler: handler()}
	for line := range strings.Lines(strings.ReplaceAll(string(config), "ID", fmt.Sprint(id))) {
		switch words := strings.Fields(line); {
		case words[0] == "own":
			p.HandleOwn(words[1], words[2], srv)
		case words[0] == "greet":
			p.Handle(words[1], words[2], pack.TCP(nil, func(_ context.Context, c net.Conn) { io.WriteString(c, "hello\n") }))
		default:
			p.Handle(words[0], words[1], srv)
		}
	}
	return p.Run(context.Background())
}

// freeBind lets a socket be bound to an address that no interface has.
var freeBind func(network, address string, c syscall.RawConn) error

// wrappedProgram serves each kind of server behind listeners that are wrapped.
func wrappedProgram() error {
	c, _ := configFlags()
	name := flag.String("config", "", "") // a file: nothing is wrapped if it is there
	flag.Parse()
	certificate, err := test.NewCertificate()
	if err != nil {
		return err
	}
	c.WrapListener = func(network, address string, l net.Listener) net.Listener {
		if _, err := os.Stat(*name); err == nil {
			return l
		}
		return greeted{l}
	}
	p := pack.New(*c)
	framework := &http.Server{Handler: handler()}
	p.Handle("tcp", "127.0.0.1:0", &http.Server{Handler: handler()})
	p.Handle("tcp", "localhost:0", &http.Server{
		Handler: handler(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	})
	p.Handle("tcp4", "127.0.0.1:0", pack.Func(framework.Serve, framework.Shutdown))
	p.Handle("tcp4", "localhost:0", pack.TCP(nil, func(ctx context.Context, c net.Conn) {
		defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(c, line)
		}
	}))
	return p.Run(context.Background())
}

// greeted is a listener of connections that begin with a line, which is taken off, as the PROXY protocol's is.
type greeted struct{ net.Listener }

func (l greeted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &greetedConn{Conn: c}, nil
}

type greetedConn struct {
	net.Conn
	greeted atomic.Bool
}

const greeting = "PROXY x\r\n"

func (c *greetedConn) Read(b []byte) (int, error) {
	if c.greeted.CompareAndSwap(false, true) {
		line := make([]byte, len(greeting))
		if _, err := io.ReadFull(c.Conn, line); err != nil || !bytes.Equal(line, []byte(greeting)) {
			return 0, fmt.Errorf("%q is no greeting: %w", line, err)
		}
	}
	return c.Conn.Read(b)
}

// squatterProgram listens on an address, and serves nothing.
func squatterProgram() error {
	c, _ := configFlags()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.Logger.Info("listening", "listening", []string{"tcp " + l.Addr().String()})
	select {}
}
