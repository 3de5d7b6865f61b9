// Command grpc serves a gRPC greeter, with reflection and health, on one pinned worker per CPU.
//
//	grpcurl -plaintext -d '{"name": "gopher"}' localhost:50051 helloworld.Greeter/SayHello
package main

import (
	"context"
	"flag"
	"fmt"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/gopherpack/gopherpack/examples/grpc/helloworld"
	"github.com/gopherpack/gopherpack/pack"
)

type greeter struct {
	helloworld.UnimplementedGreeterServer
}

func (greeter) SayHello(_ context.Context, r *helloworld.HelloRequest) (*helloworld.HelloReply, error) {
	id, _ := pack.WorkerID()
	return &helloworld.HelloReply{Message: fmt.Sprintf("hello %s, from worker %d", r.GetName(), id)}, nil
}

func main() {
	addr := flag.String("addr", "localhost:50051", "address to listen on")
	flag.Parse()

	srv := grpc.NewServer()
	helloworld.RegisterGreeterServer(srv, greeter{})
	reflection.Register(srv)
	state := health.NewServer()
	healthpb.RegisterHealthServer(srv, state)

	p := pack.New(pack.Config{
		OnShutdown: func(context.Context) { state.Shutdown() }, // NOT_SERVING, before GOAWAY
	})
	p.Handle("tcp", *addr, pack.GRPC(srv))
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
