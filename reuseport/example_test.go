package reuseport_test

import (
	"context"
	"log"
	"math/rand/v2"
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

// Two processes take turns in serving QUIC, each with a socket of the group: the second takes new connections, and the
// first keeps those that it has. Both make connection IDs by QUICID.
func ExampleAttachQUIC() {
	group, err := reuseport.ListenPacketGroup(context.Background(), "udp", "localhost:4433", 2)
	if err != nil {
		log.Fatal(err)
	}
	key := rand.Uint32()
	const first, second = 0, 1
	id := reuseport.QUICID(key, first) // of a connection of the first
	log.Printf("%x", id)
	if err := reuseport.AttachQUIC(group[0], key, []int{second}, []int{first, second}); err != nil {
		log.Fatal(err)
	}
}

// A worker of three is gone: its flows go to the other two, which keep theirs.
func ExampleAttachFlows() {
	group, err := reuseport.ListenPacketGroup(context.Background(), "udp", "localhost:5353", 3)
	if err != nil {
		log.Fatal(err)
	}
	const gone = 1
	if err := reuseport.AttachFlows(group[0], rand.Uint32(), len(group), gone); err != nil {
		log.Fatal(err)
	}
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
