// Command proxyproto serves HTTP behind a load balancer that speaks the PROXY protocol, version 1 or 2: who answers
// sees the client's address, and not the balancer's. With -cert and -key it serves HTTPS.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	from := flag.String("from", "127.0.0.0/8,::1", "addresses of the balancers: all others are refused")
	wait := flag.Duration("wait", 5*time.Second, "how long a balancer may take to say who the client is")
	cert := flag.String("cert", "", "file with the certificate")
	key := flag.String("key", "", "file with its key")
	flag.Parse()

	trusted, err := proxyproto.TrustProxyHeaderFromRanges(strings.Split(*from, ","))
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := pack.WorkerID()
		fmt.Fprintf(w, "hello %s from worker %d\n", r.RemoteAddr, id)
	})}
	if *cert != "" {
		certificate, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			log.Fatal(err)
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	p := pack.New(pack.Config{
		WrapListener: func(network, address string, l net.Listener) net.Listener {
			return &proxyproto.Listener{Listener: l, ConnPolicy: trusted, ReadHeaderTimeout: *wait}
		},
	})
	p.Handle("tcp", *addr, srv)
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
