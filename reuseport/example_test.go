package reuseport_test

import (
	"context"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/gopherpack/gopherpack/reuseport"
)

// Two listeners on one port, each served by a goroutine pinned to nothing in particular, and each getting the
// connections that its CPU receives.
func ExampleListenGroup() {
	group, err := reuseport.ListenGroup(context.Background(), "tcp", "localhost:8080", 2)
	if err != nil {
		log.Fatal(err)
	}
	if err := reuseport.AttachCPU(group[0], map[int]int{0: 0, 1: 1}); err != nil {
		log.Print("spreading by hash: ", err)
	}
	for _, l := range group {
		go http.Serve(l, http.NotFoundHandler())
	}
	select {}
}

// Give another package a configuration for its listeners.
func ExampleListenConfig() {
	lc := reuseport.ListenConfig()
	lc.KeepAlive = time.Minute
	l, err := lc.Listen(context.Background(), "tcp", "localhost:8080")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
}

// Connect to a peer from the port that this program listens on, as for hole punching.
func ExampleDial() {
	ctx := context.Background()
	l, err := reuseport.Listen(ctx, "tcp4", ":4001")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	c, err := reuseport.Dial(ctx, "tcp4", l.Addr().String(), "192.0.2.7:4001")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}

// Give the dialer of another package the option.
func ExampleControl() {
	d := net.Dialer{
		LocalAddr: &net.TCPAddr{Port: 4001},
		Timeout:   10 * time.Second,
		Control:   reuseport.Control,
	}
	c, err := d.DialContext(context.Background(), "tcp4", "192.0.2.7:4001")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}
