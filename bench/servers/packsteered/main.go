//go:build linux

// Command packsteered is a pack of net/http in which the kernel chooses the worker. It ends where that may not be.
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/gopherpack/gopherpack/bench/internal/site"
	"github.com/gopherpack/gopherpack/ebpf/steer"
	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	minReady := flag.Duration("minready", 0, "Config.MinReady")
	f := site.Parse()
	if err := run(f, *minReady); err != nil {
		log.Fatal("packsteered: ", err)
	}
}

func run(f site.Flags, minReady time.Duration) error {
	srv, err := f.Server()
	if err != nil {
		return err
	}
	p := pack.New(pack.Config{
		MinReady: minReady,
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Steering: steer.New(steer.Require()),
	})
	p.Handle("tcp", f.Address, srv)
	return p.Run(context.Background())
}
