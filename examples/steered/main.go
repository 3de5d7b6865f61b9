//go:build unix

// Command steered serves HTTP on one pinned worker per CPU, and has the kernel give each connection to the worker on
// the CPU that received it. It answers with both CPUs, and USR1 prints what came of all connections so far.
//
//	go run ./examples/steered &
//	for cpu in 0 1; do taskset -c $cpu curl localhost:8080; done
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/gopherpack/gopherpack/ebpf/steer"
	"github.com/gopherpack/gopherpack/pack"
	"github.com/gopherpack/gopherpack/reuseport"
)

type connKey struct{}

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	epsilon := flag.Float64("epsilon", 0.25, "how much more load than the mean a worker may have and still come first on its CPU")
	flag.Parse()

	steering := steer.New(steer.Epsilon(*epsilon))
	p := pack.New(pack.Config{Steering: steering})
	p.Handle("tcp", *addr, &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			received := -1
			if c, ok := r.Context().Value(connKey{}).(syscall.Conn); ok {
				received, _ = reuseport.IncomingCPU(c)
			}
			served, _ := pack.WorkerCPU()
			fmt.Fprintf(w, "received on CPU %d, served on CPU %d\n", received, served)
		}),
	})
	if pack.IsMaster() {
		go printStats(steering)
	}
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// printStats prints, at each USR1, what came of the choices.
func printStats(s *steer.Steering) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	for range asked {
		stats, err := s.Stats()
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Fprint(os.Stderr, stats)
	}
}
