// Command reuseport serves HTTP with one goroutine of accepts per CPU, in a single process: each has a listener of
// its own on the shared port, and gets the connections that its CPU receives.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"syscall"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/reuseport"
	"github.com/gopherpack/gopherpack/sigctl"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	flag.Parse()
	ctx, stop := sigctl.Context(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	cpus, err := affinity.Spread(0, affinity.PerCPU)
	if err != nil {
		log.Fatal(err)
	}
	config := reuseport.Config{Exclusive: true}
	group, err := config.ListenGroup(ctx, "tcp", *addr, len(cpus))
	if err != nil {
		log.Fatal(err)
	}
	members := map[int]int{}
	for i, set := range cpus {
		cpu, _ := set.First()
		members[cpu] = i
	}
	if err := reuseport.AttachCPU(group[0], members); err != nil {
		log.Print("connections are spread by hash: ", err)
	}
	for i, l := range group {
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "accepted by listener %d of %d\n", i, len(group))
		})}
		go srv.Serve(l)
		defer srv.Close()
	}
	log.Print("listening on ", group[0].Addr())
	<-ctx.Done()
	log.Print(context.Cause(ctx))
}
