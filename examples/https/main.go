// Command https serves HTTPS, HTTP/1.1 and HTTP/2, on one pinned worker per CPU.
//
// Without -cert and -key it serves with a certificate that it makes up, to be tried with curl -k.
package main

import (
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
	flag.Parse()

	certificate, err := tls.LoadX509KeyPair(*cert, *key)
	if *cert == "" {
		certificate, err = selfSigned()
	}
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, _ := pack.WorkerID()
			fmt.Fprintf(w, "hello by %s from worker %d\n", r.Proto, id)
		}),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	if err := pack.ListenAndServeHTTP("tcp", *addr, srv); err != nil {
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
