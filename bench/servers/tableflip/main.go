//go:build linux

// Command tableflip is net/http in one process that tableflip replaces on HUP, as tableflip's documentation has it: the
// new process gets the socket, and the old one calls Shutdown.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/cloudflare/tableflip"

	"github.com/gopherpack/gopherpack/bench/internal/site"
)

func main() {
	if err := run(site.Parse()); err != nil {
		log.Fatal("tableflip: ", err)
	}
}

func run(f site.Flags) error {
	u, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	defer u.Stop()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM {
				u.Stop()
				return
			}
			if err := u.Upgrade(); err != nil {
				log.Print("tableflip: ", err)
			}
		}
	}()
	l, err := u.Listen("tcp", f.Address)
	if err != nil {
		return err
	}
	srv, err := f.Server()
	if err != nil {
		return err
	}
	if srv.TLSConfig != nil {
		srv.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
		l = tls.NewListener(l, srv.TLSConfig)
	}
	failed := make(chan error, 1)
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	if err := u.Ready(); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-u.Exit():
		return srv.Shutdown(context.Background())
	}
}
