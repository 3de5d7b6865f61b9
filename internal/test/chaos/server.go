//go:build linux

package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/ebpf/steer"
	"github.com/gopherpack/gopherpack/internal/test/hangtest"
	"github.com/gopherpack/gopherpack/pack"
)

// serverEnv makes this program the server; its value marks the processes of one run.
const serverEnv = "CHAOS_SERVER"

const (
	hangTimeout     = 2 * time.Second
	shutdownTimeout = 5 * time.Second
	softMemory      = 150 << 20
	hardMemory      = 400 << 20
	openFiles       = 256
)

// serve is the pack.
func serve() error {
	c := pack.Config{
		Workers:         2,
		Logger:          slog.New(slog.NewJSONHandler(os.Stderr, nil)),
		ShutdownTimeout: shutdownTimeout,
		ReadyTimeout:    10 * time.Second,
		MinReady:        100 * time.Millisecond,
		HangTimeout:     hangTimeout,
		Files:           openFiles,
		Recycle:         pack.Recycle{Memory: softMemory, MemoryHard: hardMemory},
	}
	if strings.HasPrefix(os.Getenv(serverEnv), "steer") {
		c.Steering = steer.New()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {})
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { hangtest.Sleep(time.Hour) })
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { go panic("chaos asked for it") })
	mux.HandleFunc("/leak", func(http.ResponseWriter, *http.Request) { leak(8 << 20) })
	mux.HandleFunc("/descriptors", func(http.ResponseWriter, *http.Request) { exhaust() })
	p := pack.New(c)
	p.Handle("tcp", "127.0.0.1:0", &http.Server{Handler: mux})
	return p.Run(context.Background())
}

var leaked [][]byte

func leak(n int) {
	more := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		more[i] = 1
	}
	leaked = append(leaked, more)
}

// exhaust opens all descriptors that this process may have, for a while.
func exhaust() {
	var all []*os.File
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			break
		}
		all = append(all, f)
	}
	time.Sleep(300 * time.Millisecond)
	for _, f := range all {
		f.Close()
	}
}
