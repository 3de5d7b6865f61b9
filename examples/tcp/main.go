// Command tcp echoes what it is sent, on one pinned worker per CPU.
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"net"
	"time"

	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	addr := flag.String("addr", "localhost:7000", "address to listen on")
	flag.Parse()

	p := pack.New(pack.Config{ShutdownTimeout: 10 * time.Second})
	p.Handle("tcp", *addr, pack.TCP(nil, func(ctx context.Context, c net.Conn) {
		// When the worker stops: echo what has arrived, then wait for no more.
		defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })()
		io.Copy(c, c)
	}))
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
