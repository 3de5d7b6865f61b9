//go:build unix

package pack_test

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/acceptlog"
	"github.com/gopherpack/gopherpack/pack"
)

// The programs of the tests. Each is master and worker, as a user's would be.
var programs = map[string]func() error{
	"http":  httpProgram,
	"https": httpsProgram,
	"tcp":   tcpProgram,
	"many":  manyProgram,
	"lazy":  lazyProgram,
	"hooks": hooksProgram,

	"unmanaged": unmanagedProgram,
	"oneline":   onelineProgram,
	"broken":    brokenProgram,
	"func":      funcProgram,
	"packets":   packetsProgram,
	"at":        atProgram,
	"wrapped":   wrappedProgram,
	"squatter":  squatterProgram,
}

// configFlags are flags for the fields of a Config.
func configFlags() (c *pack.Config, address *string) {
	level := new(slog.LevelVar)
	flag.TextVar(level, "level", new(slog.LevelVar), "")
	c = &pack.Config{Logger: slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))}
	flag.IntVar(&c.Workers, "workers", 0, "")
	flag.TextVar(&c.CPUs, "cpus", affinity.Set{}, "")
	flag.TextVar(&c.Placement, "placement", pack.PerCPU, "")
	flag.DurationVar(&c.ShutdownTimeout, "shutdown", 0, "")
	flag.DurationVar(&c.ReadyTimeout, "ready", 0, "")
	flag.DurationVar(&c.DrainDelay, "drain", 0, "")
	flag.DurationVar(&c.MinReady, "minready", 20*time.Millisecond, "")
	flag.BoolVar(&c.Rolling, "rolling", false, "")
	flag.IntVar(&c.MaxGenerations, "generations", 0, "")
	flag.Func("hang", "", func(text string) (err error) {
		hang, err := strconv.Atoi(text)
		c.Hang = pack.HangPolicy(hang)
		return err
	})
	flag.Uint64Var(&c.Recycle.Requests, "maxrequests", 0, "")
	flag.DurationVar(&c.Recycle.Age, "maxage", 0, "")
	flag.Uint64Var(&c.Recycle.Memory, "maxmemory", 0, "")
	flag.Uint64Var(&c.Recycle.MemoryHard, "hardmemory", 0, "")
	flag.DurationVar(&c.HangTimeout, "hangtimeout", 0, "")
	flag.StringVar(&c.User, "user", "", "")
	flag.Func("unixmode", "", func(text string) error {
		mode, err := strconv.ParseUint(text, 8, 32)
		c.UnixMode = fs.FileMode(mode)
		return err
	})
	flag.StringVar(&c.UnixOwner, "unixowner", "", "")
	flag.Uint64Var(&c.Files, "files", 0, "")
	flag.BoolVar(&c.PrefixOutput, "prefix", false, "")
	flag.BoolVar(&c.SingleP, "singlep", false, "")
	flag.BoolVar(&c.NoRebalance, "norebalance", false, "")
	flag.BoolVar(&c.AcceptAtOnce, "acceptatonce", false, "")
	flag.BoolVar(&c.Inline, "inline", false, "")
	return c, flag.String("address", "tcp localhost:0", "")
}

func serve(c *pack.Config, address string, s pack.Server) error {
	network, addr, _ := strings.Cut(address, " ")
	p := pack.New(*c)
	p.Handle(network, addr, s)
	return p.Run(context.Background())
}

func httpProgram() error {
	c, address := configFlags()
	accepts := flag.String("accepts", "", "")
	flag.Parse()
	c.Probe = func(context.Context) error {
		if unwell.Load() {
			return errors.New("the database does not answer")
		}
		return nil
	}
	srv := &http.Server{Handler: handler()}
	srv.RegisterOnShutdown(func() { close(toldToStop) })
	if *accepts != "" && !pack.IsMaster() {
		var err error
		if srv.ConnState, err = acceptlog.Writer(*accepts); err != nil {
			return err
		}
	}
	return serve(c, *address, srv)
}

// unmanagedProgram has no service manager told anything.
func unmanagedProgram() error {
	os.Unsetenv("NOTIFY_SOCKET")
	return httpProgram()
}

func httpsProgram() error {
	c, address := configFlags()
	none := flag.Bool("nocert", false, "")
	flag.Parse()
	config := &tls.Config{}
	if !*none {
		certificate, err := test.NewCertificate()
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	srv := &http.Server{Handler: handler(), TLSConfig: config}
	srv.RegisterOnShutdown(func() { close(toldToStop) })
	return serve(c, *address, srv)
}

func tcpProgram() error {
	c, address := configFlags()
	secure := flag.Bool("tls", false, "")
	flag.Parse()
	var config *tls.Config
	if *secure {
		certificate, err := test.NewCertificate()
		if err != nil {
			return err
		}
		config = &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	return serve(c, *address, pack.TCP(config, func(ctx context.Context, conn net.Conn) {
		defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				if ctx.Err() != nil {
					io.WriteString(conn, "bye\n")
				}
				return
			}
			if strings.HasPrefix(string(buf[:n]), "panic") {
				panic("the client asked for it")
			}
			conn.Write(buf[:n])
		}
	}))
}

// manyProgram serves several things at once.
func manyProgram() error {
	c, path := configFlags()
	flag.Parse()
	p := pack.New(*c)
	answer := func(text string) *http.Server {
		return &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, text)
		})}
	}
	same := answer("same")
	p.Handle("tcp", "localhost:0", answer("first"))
	p.Handle("tcp", "localhost:0", answer("second"))
	p.Handle("tcp4", "127.0.0.1:0", same)
	p.Handle("unix", *path, same)
	return p.Run(context.Background())
}

// lazyProgram builds its servers in the workers only.
func lazyProgram() error {
	c, address := configFlags()
	flag.Parse()
	p := pack.New(*c)
	if pack.IsMaster() {
		return p.Run(context.Background())
	}
	network, addr, _ := strings.Cut(*address, " ")
	p.Handle(network, addr, &http.Server{Handler: handler()})
	return p.Run(context.Background())
}

// hooksProgram logs every hook.
func hooksProgram() error {
	c, address := configFlags()
	fail := flag.String("fail", "", "")
	hold := flag.String("hold", "", "") // a file: OnShutdown does not return as long as it is there
	flag.Parse()
	hook := func(name string) func(context.Context) error {
		return func(context.Context) error {
			if *fail == name {
				return errors.New(name + " went wrong")
			}
			id, isWorker := pack.WorkerID()
			c.Logger.Info("hook "+name, "id", id, "isWorker", isWorker, "isMaster", pack.IsMaster())
			return nil
		}
	}
	c.OnStart = hook("OnStart")
	c.OnWorkerStart = hook("OnWorkerStart")
	c.OnShutdown = func(ctx context.Context) {
		hook("OnShutdown")(ctx)
		for held := *hold != ""; held; time.Sleep(10 * time.Millisecond) {
			_, err := os.Stat(*hold)
			held = err == nil
		}
	}
	return serve(c, *address, &http.Server{Handler: handler()})
}

func onelineProgram() error {
	_, address := configFlags()
	kind := flag.String("kind", "", "")
	flag.Parse()
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	network, addr, _ := strings.Cut(*address, " ")
	if *kind == "tcp" {
		return pack.ListenAndServeTCP(network, addr, nil, func(c net.Conn) { io.Copy(c, c) })
	}
	return pack.ListenAndServeHTTP(network, addr, &http.Server{Handler: handler()})
}

// brokenProgram goes wrong in some way.
func brokenProgram() error {
	c, address := configFlags()
	how := flag.String("how", "", "")
	flag.Parse()
	id, isWorker := pack.WorkerID()
	if isWorker {
		switch *how {
		case "panic":
			panic("cannot open the database")
		case "exit":
			os.Exit(0)
		case "exit in worker 1":
			if id == 1 {
				os.Exit(4)
			}
		case "hang":
			time.Sleep(time.Hour)
		}
	}
	switch *how {
	case "nothing":
		return pack.New(*c).Run(context.Background())
	case "nil":
		return serve(c, *address, nil)
	case "serve fails":
		return serve(c, *address, pack.Func(func(net.Listener) error { return errors.New("no more tape") }, nil))
	case "serve fails later":
		return serve(c, *address, tornServer(id == 0))
	case "never accepts":
		return serve(c, *address, pack.Func(func(net.Listener) error { select {} }, nil))
	case "handled in OnStart":
		var p *pack.Pack
		c.OnStart = func(context.Context) error {
			p.Handle("tcp", "localhost:0", &http.Server{Handler: handler()})
			return nil
		}
		p = pack.New(*c)
		return p.Run(context.Background())
	case "two packs":
		c.OnStart = func(ctx context.Context) error { return serve(&pack.Config{}, *address, &http.Server{}) }
		return serve(c, *address, &http.Server{})
	case "reload in a worker":
		var p *pack.Pack
		c.OnWorkerStart = func(ctx context.Context) error { return p.Reload(ctx) }
		p = pack.New(*c)
		p.Handle("tcp", "localhost:0", &http.Server{})
		return p.Run(context.Background())
	case "twice":
		p := pack.New(*c)
		p.Handle("tcp", "localhost:1", &http.Server{})
		p.Handle("tcp", "localhost:1", &http.Server{})
		return p.Run(context.Background())
	}
	return serve(c, *address, &http.Server{Handler: handler()})
}

// tornServer returns a server of which a request for /tear has Serve fail, and takes until its client goes.
func tornServer(tears bool) pack.Server {
	torn := new(atomic.Bool)
	mux := http.NewServeMux()
	mux.Handle("/", handler())
	mux.HandleFunc("/tear", func(w http.ResponseWriter, r *http.Request) {
		if tears {
			torn.Store(true)
			w.WriteHeader(http.StatusAccepted)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})
	srv := &http.Server{Handler: mux}
	return pack.Func(func(l net.Listener) error { return srv.Serve(tornListener{l, torn}) }, srv.Shutdown)
}

type tornListener struct {
	net.Listener
	torn *atomic.Bool
}

func (l tornListener) Accept() (net.Conn, error) {
	if l.torn.Load() {
		return nil, errors.New("no more tape")
	}
	return l.Listener.Accept()
}

// funcProgram serves with a framework that has only functions.
func funcProgram() error {
	c, address := configFlags()
	flag.Parse()
	srv := &http.Server{Handler: handler()}
	return serve(c, *address, pack.Func(srv.Serve, srv.Shutdown))
}

// packetsProgram answers each datagram with who it is and what the datagram says, each in a goroutine of its own, after
// as long as it says, if it does. Other services can be at the same address.
func packetsProgram() error {
	c, address := configFlags()
	beside := flag.Bool("beside", false, "")
	flag.Parse()
	id, _ := pack.WorkerID()
	serve := func(conn net.PacketConn) error {
		var answering sync.WaitGroup
		defer answering.Wait()
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return err
			}
			text := string(buf[:n])
			answering.Go(func() {
				if d, err := time.ParseDuration(text); err == nil {
					time.Sleep(d)
				}
				fmt.Fprintf(writerTo{conn, from}, "id=%d pid=%d %s", id, os.Getpid(), text)
			})
		}
	}
	network, addr, _ := strings.Cut(*address, " ")
	p := pack.New(*c)
	p.HandlePacket(network, addr, pack.PacketFunc(serve, nil))
	if *beside {
		p.Handle("tcp"+strings.TrimPrefix(network, "udp"), addr, &http.Server{Handler: handler()})
	}
	return p.Run(context.Background())
}

// writerTo writes to an address.
type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }
