package reuseport_test

import (
	"context"
	"log"
	"net"
	"net/http"
	"syscall"

	"github.com/gopherpack/gopherpack/reuseport"
)

// Two listeners on one port, each served by a goroutine pinned to nothing in particular, and each getting the
// connections that its CPU receives.
func ExampleListenGroup() {
	group, err := reuseport.ListenGroup(context.Background(), "tcp", "localhost:8080", 2)
	if err != nil {
		log.Fatal(err)
	}
	if err := reuseport.AttachCPU(group[0].(syscall.Conn), map[int]int{0: 0, 1: 1}); err != nil {
		log.Print("spreading by hash: ", err)
	}
	for _, l := range group {
		go http.Serve(l, http.NotFoundHandler())
	}
	select {}
}

// Give another package's listener the option.
func ExampleControl() {
	lc := net.ListenConfig{Control: reuseport.Control}
	l, err := lc.Listen(context.Background(), "tcp", "localhost:8080")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
}
