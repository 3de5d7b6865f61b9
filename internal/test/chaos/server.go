//go:build linux

package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gopherpack/gopherpack/ebpf/steer"
	"github.com/gopherpack/gopherpack/internal/test/acceptlog"
	"github.com/gopherpack/gopherpack/internal/test/hangtest"
	"github.com/gopherpack/gopherpack/pack"
)

// serverEnv makes this program the server. Its value is how connections come to workers, and addressEnv what it serves.
// acceptsEnv is the file that workers write to whose connections they have accepted.
const (
	serverEnv  = "CHAOS_SERVER"
	addressEnv = "CHAOS_ADDRESS"
	acceptsEnv = "CHAOS_ACCEPTS"
)

const (
	hangTimeout     = 2 * time.Second
	shutdownTimeout = 5 * time.Second
	softMemory      = 150 << 20
	hardMemory      = 400 << 20
	openFiles       = 256
	firstWorkers    = 2
)

// serve is the pack.
func serve() error {
	c := pack.Config{
		Workers:         firstWorkers,
		Logger:          slog.New(slog.NewJSONHandler(os.Stderr, nil)),
		ShutdownTimeout: shutdownTimeout,
		DrainDelay:      time.Second, // so that clients which keep connections lose nothing at a stop
		ReadyTimeout:    10 * time.Second,
		MinReady:        100 * time.Millisecond,
		HangTimeout:     hangTimeout,
		Files:           openFiles,
		Recycle:         pack.Recycle{Memory: softMemory, MemoryHard: hardMemory},
	}
	if os.Getenv(serverEnv) == "steer" {
		c.Steering = steer.New()
	}
	accepted, err := acceptlog.Writer(os.Getenv(acceptsEnv))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {})
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { hangtest.Sleep(time.Hour) })
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { go panic("chaos asked for it") })
	mux.HandleFunc("/leak", func(http.ResponseWriter, *http.Request) { leak(8 << 20) })
	mux.HandleFunc("/descriptors", func(http.ResponseWriter, *http.Request) { exhaust() })
	mux.HandleFunc("/hostile", func(w http.ResponseWriter, r *http.Request) {
		pid := strconv.Itoa(os.Getpid())
		w.Header().Set("Content-Length", strconv.Itoa(len(pid)))
		io.WriteString(w, pid)
		http.NewResponseController(w).Flush() // who asks has an answer before this worker is killed
		go attack(r.FormValue("what"))
	})
	p := pack.New(c)
	p.Handle("tcp", os.Getenv(addressEnv), &http.Server{Handler: mux, ConnState: accepted})
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

// freeAddress returns an address that nobody listens on. It is not that of clients, which could otherwise connect to
// themselves while no pack listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// newAccepts makes the file that workers write to whose connections they have accepted.
func newAccepts() (string, error) {
	f, err := os.CreateTemp("", "chaos")
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}
