// Command grpcgo is grpc-go alone, in one process: the base of comparison for gRPC.
package main

import (
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	api "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	address := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	l, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal("grpcgo: ", err)
	}
	srv := grpc.NewServer()
	api.RegisterHealthServer(srv, health.NewServer())
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	go func() {
		<-terms
		srv.Stop()
	}()
	if err := srv.Serve(l); err != nil {
		log.Fatal("grpcgo: ", err)
	}
}
