// Package site is what the servers of this module that are made of net/http have in common: flags, handler and TLS.
package site

import (
	"context"
	"crypto/tls"
	"flag"
	"net"
	"net/http"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/gopherpack/gopherpack/bench/internal/answers"
)

// Flags are those that every server of this module takes.
type Flags struct {
	Address string
	TLS     string // directory of cert.pem and key.pem; without, there is no TLS
}

// Parse parses the command line. Flags of a server's own are defined before.
func Parse() (f Flags) {
	flag.StringVar(&f.Address, "addr", "127.0.0.1:8080", "address to listen on")
	flag.StringVar(&f.TLS, "tls", "", "serve TLS with cert.pem and key.pem of this directory")
	flag.Parse()
	return f
}

// Server returns the server.
func (f Flags) Server() (*http.Server, error) {
	srv := &http.Server{Handler: http.HandlerFunc(serve)}
	if f.TLS == "" {
		return srv, nil
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(f.TLS, "cert.pem"), filepath.Join(f.TLS, "key.pem"))
	if err != nil {
		return nil, err
	}
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	return srv, nil
}

// Serve serves on l until TERM.
func (f Flags) Serve(l net.Listener) error {
	srv, err := f.Server()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { srv.Close() })
	if f.TLS != "" {
		err = srv.ServeTLS(l, "", "")
	} else {
		err = srv.Serve(l)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func serve(w http.ResponseWriter, r *http.Request) {
	body, ok := answers.Body(r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", answers.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}
