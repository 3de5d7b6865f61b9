//go:build !js

package sigctl_test

import (
	"context"
	"log"
	"net/http"
	"os"
	"syscall"

	"github.com/gopherpack/gopherpack/sigctl"
)

// Stop on the first signal; a second one ends the process at once.
func ExampleContext() {
	ctx, stop := sigctl.Context(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Addr: "localhost:8080"}
	go srv.ListenAndServe()
	<-ctx.Done()
	log.Print(context.Cause(ctx)) // signal: terminated
	srv.Shutdown(context.Background())
}

// Stop has precedence over reload, interrupts it, and is forced by a second signal.
func ExampleMux() {
	ctx, cancel := context.WithCancel(context.Background())
	m := sigctl.Mux{Actions: []sigctl.Action{
		{
			Name:    "stop",
			Signals: []os.Signal{os.Interrupt, syscall.SIGTERM},
			Do:      func(context.Context, os.Signal) { cancel() },
			Again:   func() { os.Exit(1) },
		},
		{
			Name:    "reload",
			Signals: []os.Signal{syscall.SIGHUP},
			Do:      func(context.Context, os.Signal) { log.Print("reading the configuration again") },
		},
	}}
	m.Run(ctx)
}
