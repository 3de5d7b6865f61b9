//go:build linux

// Package systemd_test runs the units of this directory, by a real systemd.
package systemd_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/ebpf/steer"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
	"github.com/gopherpack/gopherpack/internal/test/systemd"
	"github.com/gopherpack/gopherpack/pack"
)

// server is where the units expect the program, which is the test binary.
const server = "/srv/site/server"

func TestMain(m *testing.M) {
	systemd.Main()
	if filepath.Base(os.Args[0]) == filepath.Base(server) {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	leaktest.Main(m)
}

// What the program does is told by files, which tests make and remove.
const (
	broken = "/srv/site/broken" // a worker that starts fails
	held   = "/srv/site/held"   // it is not ready until there is no such file
)

// steered is the variable by which it is told to steer.
const steered = "SITE_STEERED"

// serve is the program.
func serve() error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, os.Getppid(), os.Getpid()) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		time.Sleep(3 * time.Second)
		fmt.Fprintln(w, "slow")
	})
	mux.HandleFunc("/environ", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, strings.Join(os.Environ(), "\n"))
	})
	config := pack.Config{
		Workers: 2, MinReady: 50 * time.Millisecond,
		DrainDelay: 500 * time.Millisecond, // in which each client on a kept-alive connection is told that it ends
		OnWorkerStart: func(ctx context.Context) error {
			if exists(broken) {
				return errors.New("the configuration is broken")
			}
			for exists(held) {
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			return nil
		},
	}
	if os.Getenv(steered) != "" {
		config.Steering = steer.New()
	}
	p := pack.New(config)
	p.Handle("tcp", ":80", &http.Server{Handler: mux})
	return p.Run(context.Background())
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
