// Command pack is a pack of net/http, with the defaults of package pack.
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"os"
	"runtime"

	"github.com/gopherpack/gopherpack/bench/internal/site"
	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	procs := flag.Int("procs", 0, "GOMAXPROCS of each worker; 0: as the pack has it")
	var c pack.Config
	flag.IntVar(&c.Workers, "workers", 0, "Config.Workers")
	flag.DurationVar(&c.MinReady, "minready", 0, "Config.MinReady")
	f := site.Parse()
	if err := run(f, c, *procs); err != nil {
		log.Fatal("pack: ", err)
	}
}

func run(f site.Flags, c pack.Config, procs int) error {
	c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if procs > 0 {
		c.OnWorkerStart = func(context.Context) error {
			runtime.GOMAXPROCS(procs)
			return nil
		}
	}
	srv, err := f.Server()
	if err != nil {
		return err
	}
	p := pack.New(c)
	p.Handle("tcp", f.Address, srv)
	return p.Run(context.Background())
}
