package pack_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/pack"
)

// A handler starts a program that may use all CPUs of the pack, not the worker's alone, and as many threads.
func ExampleCPUs() {
	http.HandleFunc("POST /smaller", func(w http.ResponseWriter, r *http.Request) {
		cmd := exec.CommandContext(r.Context(), "convert", "-", "-resize", "50%", "jpg:-")
		cmd.Stdin, cmd.Stdout = r.Body, w
		cmd.Env = pack.Environ()
		err := affinity.Do(pack.CPUs(), cmd.Start) // on Linux; elsewhere workers are not pinned
		if err == nil {
			err = cmd.Wait()
		}
		if err != nil {
			log.Print(err)
		}
	})
}

// Answer datagrams, each with itself, in capitals.
func ExamplePacketFunc() {
	p := pack.New(pack.Config{})
	p.HandlePacket("udp", ":7000", pack.PacketFunc(func(conn net.PacketConn) error {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return err // the worker is to stop
			}
			conn.WriteTo(bytes.ToUpper(buf[:n]), from)
		}
	}, nil))
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Certificates from files, which may be replaced while the pack serves, and keys of session tickets that all machines
// share.
func ExamplePack_Certificates() {
	p := pack.New(pack.Config{TicketKeys: "/etc/site/tickets"})
	certificates := p.Certificates(
		pack.KeyPair{Certificate: "/etc/site/site.pem", Key: "/etc/site/site.key"},
		pack.KeyPair{Certificate: "/etc/site/shop.pem", Key: "/etc/site/shop.key"},
	)
	p.Handle("tcp", ":443", &http.Server{TLSConfig: &tls.Config{GetCertificate: certificates}})
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Several services. The database is opened in the workers only: main runs in the master, too.
func ExamplePack() {
	p := pack.New(pack.Config{ShutdownTimeout: 10 * time.Second})
	if !pack.IsMaster() {
		db, err := sql.Open("postgres", os.Getenv("DATABASE_URL"))
		if err != nil {
			log.Fatal(err)
		}
		defer db.Close()
		mux := http.NewServeMux()
		mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
			if err := db.PingContext(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		})
		p.Handle("tcp", ":8080", &http.Server{Handler: mux})
		p.Handle("unix", "/run/site.sock", &http.Server{Handler: mux})
	}
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Lines of text, until the worker drains: then what has arrived is answered, and no more is waited for.
func ExampleTCP() {
	p := pack.New(pack.Config{})
	p.Handle("tcp", ":7000", pack.TCP(nil, func(ctx context.Context, c net.Conn) {
		defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })()
		for lines := bufio.NewScanner(c); lines.Scan(); {
			fmt.Fprintln(c, strings.ToUpper(lines.Text()))
		}
	}))
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func ExampleListenAndServeHTTP() {
	srv := &http.Server{Handler: http.FileServer(http.Dir("."))}
	if err := pack.ListenAndServeHTTP("tcp", ":8080", srv); err != nil {
		log.Fatal(err) // nil, after a graceful stop, is no reason to exit with status 1
	}
}

// app is of a framework, such as fiber.
type app struct{}

func (*app) Listener(net.Listener, ...struct{ Quiet bool }) error { return nil }
func (*app) ShutdownWithContext(context.Context) error            { return nil }

func ExampleFunc() {
	app := new(app) // fiber.New()
	serve := func(l net.Listener) error { return app.Listener(l) }
	p := pack.New(pack.Config{})
	p.Handle("tcp", ":8080", pack.Func(serve, app.ShutdownWithContext))
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A worker whose database cannot be reached for a minute, though others reach it, is replaced, and so is one that has
// leaked.
func Example_supervision() {
	var db *sql.DB // opened in OnWorkerStart
	p := pack.New(pack.Config{
		HangTimeout: time.Minute,
		Probe:       func(ctx context.Context) error { return db.PingContext(ctx) },
		Recycle: pack.Recycle{
			Requests:   1_000_000,
			Age:        24 * time.Hour,
			Memory:     512 << 20, // drained and replaced
			MemoryHard: 1 << 30,   // killed and replaced
		},
		OnReopen: func() { log.Print("open log files anew") }, // at USR1
	})
	p.Handle("tcp", ":8080", &http.Server{})
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Profiles of one certain worker: worker 0 serves them at port 9100, worker 1 at 9101. In each, package net/http/pprof
// is imported for its handlers.
func ExamplePack_HandleOwn() {
	p := pack.New(pack.Config{})
	p.Handle("tcp", ":8080", &http.Server{})
	p.HandleOwn("tcp", "localhost:9100", &http.Server{Handler: http.DefaultServeMux})
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A limit of connections for each worker.
func ExampleConfig_wrapListener() {
	p := pack.New(pack.Config{
		WrapListener: func(network, address string, l net.Listener) net.Listener {
			return netutil.LimitListener(l, 1000)
		},
	})
	p.Handle("tcp", ":8080", &http.Server{})
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Lines of the workers' stdout and stderr begin with the worker, "worker 3[4711]: ", and a crash is in one piece.
func ExampleConfig_prefixOutput() {
	p := pack.New(pack.Config{PrefixOutput: true})
	p.Handle("tcp", ":8080", &http.Server{})
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
