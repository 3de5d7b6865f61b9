// Command https serves HTTPS, HTTP/1.1 and HTTP/2, on one pinned worker per CPU.
//
// The files of -cert and -key are read anew when they change. Without them it serves with a certificate that it makes
// up, to be tried with curl -k. Several machines share -tickets, a file, so that each resumes the sessions of all.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"time"

	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	addr := flag.String("addr", "localhost:8443", "address to listen on")
	cert := flag.String("cert", "", "file with the certificate")
	key := flag.String("key", "", "file with its key")
	tickets := flag.String("tickets", "", "file with keys of session tickets")
	flag.Parse()

	p := pack.New(pack.Config{TicketKeys: *tickets})
	config := &tls.Config{}
	if *cert != "" {
		config.GetCertificate = p.Certificates(pack.KeyPair{Certificate: *cert, Key: *key})
	} else {
		certificate, err := selfSigned()
		if err != nil {
			log.Fatal(err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	p.Handle("tcp", *addr, &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, _ := pack.WorkerID()
			fmt.Fprintf(w, "hello by %s from worker %d\n", r.Proto, id)
		}),
		TLSConfig: config,
	})
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
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
