package steer_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/ebpf/steer"
	"github.com/gopherpack/gopherpack/reuseport"
)

// One listener per CPU in one process, without package pack: each connection is accepted by the goroutine for the CPU
// that received it, unless that has more connections than the others.
func Example() {
	cpus, err := affinity.Spread(2, affinity.PerCPU)
	if err != nil {
		log.Fatal(err)
	}
	group, err := reuseport.ListenGroup(context.Background(), "tcp", "localhost:8080", len(cpus))
	if err != nil {
		log.Fatal(err)
	}
	s := steer.New(steer.Epsilon(0.25))
	if err := s.Start(cpus); err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	var sockets []syscall.Conn
	for _, l := range group {
		sockets = append(sockets, l.(syscall.Conn))
	}
	if err := s.Attach("http", sockets, nil); err != nil {
		log.Fatal(err)
	}
	if mode, reason := s.Mode(); reason != nil {
		log.Printf("steering by %s, since the program cannot be used: %v", mode, reason)
	}
	for id, l := range group {
		slot, err := s.Join()
		if err != nil {
			log.Fatal(err)
		}
		r := s.Reporter(slot)
		srv := &http.Server{ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				r.Accept()
			case http.StateClosed, http.StateHijacked:
				r.Close()
			}
		}}
		go srv.Serve(l)
		if err := s.Up(id, slot); err != nil {
			log.Fatal(err)
		}
	}
	for range time.Tick(time.Minute) {
		stats, _ := s.Stats()
		fmt.Print(stats)
	}
}
