// Command nethttp is net/http alone, in one process, as most programs have it: the base of comparison.
package main

import (
	"log"
	"net"

	"github.com/gopherpack/gopherpack/bench/internal/site"
)

func main() {
	f := site.Parse()
	l, err := net.Listen("tcp", f.Address)
	if err == nil {
		err = f.Serve(l)
	}
	if err != nil {
		log.Fatal("nethttp: ", err)
	}
}
