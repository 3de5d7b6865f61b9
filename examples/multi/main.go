// Command multi serves three things in one pack: a public site, an echo service, and an internal status page on a
// Unix socket. The master builds none of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/gopherpack/gopherpack/pack"
)

var (
	web    = flag.String("http", "localhost:8080", "address of the site")
	echo   = flag.String("echo", "localhost:7000", "address of the echo service")
	status = flag.String("status", "multi.sock", "path of the status page's socket")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	p := pack.New(pack.Config{
		ShutdownTimeout: 10 * time.Second,
		OnStart: func(context.Context) error {
			log.Print("once per pack: here the database would be migrated")
			return nil
		},
	})
	if pack.IsMaster() {
		return p.Run(context.Background())
	}
	started := time.Now()
	p.Handle("tcp", *web, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "welcome")
	})})
	p.Handle("tcp", *echo, pack.TCP(nil, func(ctx context.Context, c net.Conn) {
		defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })()
		io.Copy(c, c)
	}))
	p.Handle("unix", *status, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := pack.WorkerID()
		fmt.Fprintf(w, "worker %d is up since %v\n", id, time.Since(started).Round(time.Millisecond))
	})})
	return p.Run(context.Background())
}
