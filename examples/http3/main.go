// Command http3 serves HTTP/3, and HTTP/2 and HTTP/1.1 beside it, whose answers say so (Alt-Svc), on one pinned worker per
// CPU. A reload (HUP) or an upgrade (USR2) goes by while downloads go on: each ends in the process in which it began.
//
// Without -cert and -key it serves with a certificate that it makes up, to be tried with curl -k --http3.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	addr := flag.String("addr", "localhost:8443", "address to listen on, by UDP and TCP")
	cert := flag.String("cert", "", "file with the certificate")
	key := flag.String("key", "", "file with its key")
	flag.Parse()

	certificate, err := tls.LoadX509KeyPair(*cert, *key)
	if *cert == "" {
		certificate, err = selfSigned()
	}
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}

	mux := http.NewServeMux()
	mux.HandleFunc("/", hello)
	mux.HandleFunc("/slow", slow)
	byQUIC := &http3.Server{Handler: mux}
	byTCP := &http.Server{TLSConfig: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		byQUIC.SetQUICHeaders(w.Header()) // HTTP/3 is served, too
		mux.ServeHTTP(w, r)
	})}

	p := pack.New(pack.Config{})
	p.HandleQUIC("udp", *addr, serverOf(byQUIC, config))
	p.Handle("tcp", *addr, byTCP)
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// serverOf returns what serves HTTP/3 in a worker.
func serverOf(srv *http3.Server, config *tls.Config) pack.QUICServer {
	ended := make(chan struct{})
	serve := func(conn net.PacketConn, q *pack.QUIC) error {
		reset, token := quic.StatelessResetKey(q.ResetKey()), quic.TokenGeneratorKey(q.TokenKey())
		transport := &quic.Transport{
			Conn: conn, ConnectionIDGenerator: ids{q}, StatelessResetKey: &reset, TokenGeneratorKey: &token,
		}
		defer transport.Close()
		shared := pack.ShareTickets("http3", http3.ConfigureTLSConfig(config))
		listener, err := transport.ListenEarly(shared, &quic.Config{MaxIdleTimeout: 30 * time.Second})
		if err != nil {
			return err
		}
		defer listener.Close()
		err = srv.ServeListener(listener)
		if errors.Is(err, http.ErrServerClosed) {
			<-ended // until then connections go on by the transport
		}
		return err
	}
	shutdown := func(ctx context.Context) error {
		defer close(ended)
		return srv.Shutdown(ctx)
	}
	return pack.QUICFunc(serve, shutdown)
}

// ids has quic-go use the connection IDs by which the kernel finds this worker.
type ids struct{ *pack.QUIC }

func (q ids) GenerateConnectionID() (quic.ConnectionID, error) {
	return quic.ConnectionIDFromBytes(q.ConnectionID()), nil
}

func hello(w http.ResponseWriter, r *http.Request) {
	id, _ := pack.WorkerID()
	fmt.Fprintf(w, "hello by %s from worker %d, process %d\n", r.Proto, id, os.Getpid())
}

// slow takes three seconds.
func slow(w http.ResponseWriter, r *http.Request) {
	for i := range 30 {
		fmt.Fprintf(w, "line %d of process %d\n", i, os.Getpid())
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"localhost"},
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
