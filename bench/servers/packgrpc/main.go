// Command packgrpc is a pack of grpc-go.
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	api "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	address := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	srv := grpc.NewServer()
	api.RegisterHealthServer(srv, health.NewServer())
	p := pack.New(pack.Config{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	p.Handle("tcp", *address, pack.GRPC(srv))
	if err := p.Run(context.Background()); err != nil {
		log.Fatal("packgrpc: ", err)
	}
}
