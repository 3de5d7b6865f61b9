//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/gopherpack/gopherpack/ebpf/steer"
	"github.com/gopherpack/gopherpack/pack"
)

// servers are what this program can be, by the flag -serve.
var servers = map[string]func(address string) error{
	"net/http":      serveNetHTTP,
	"pack":          func(address string) error { return servePack(address, nil) },
	"pack, steered": func(address string) error { return servePack(address, steer.New(steer.Require())) },
}

// order is that of the table.
var order = []string{"net/http", "pack", "pack, steered"}

// serveNetHTTP serves in one process, on all CPUs that it may use.
func serveNetHTTP(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Addr: address, Handler: handler()}
	context.AfterFunc(ctx, func() { srv.Close() })
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// servePack serves with a worker for each of these CPUs.
func servePack(address string, steering pack.Steering) error {
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p := pack.New(pack.Config{Logger: quiet, Steering: steering})
	p.Handle("tcp", address, &http.Server{Handler: handler()})
	return p.Run(context.Background())
}

// item is part of a document such as many services read and write.
type item struct {
	ID    int               `json:"id"`
	Name  string            `json:"name"`
	Count int               `json:"count"`
	Price float64           `json:"price"`
	Total float64           `json:"total"`
	Tags  map[string]string `json:"tags"`
}

// document has about 2 KB.
var document = func() []byte {
	var items []item
	for i := range 20 {
		tags := map[string]string{"color": "green", "size": "small"}
		items = append(items, item{ID: i, Name: "something for sale", Count: i, Price: 1.5, Tags: tags})
	}
	text, err := json.Marshal(items)
	if err != nil {
		panic(err)
	}
	return text
}()

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	mux.HandleFunc("/json", reckon)
	return mux
}

// reckon decodes the document, and encodes another, which takes some hundred allocations.
func reckon(w http.ResponseWriter, r *http.Request) {
	var items []item
	if err := json.Unmarshal(document, &items); err != nil {
		panic(err)
	}
	for i := range items {
		items[i].Total = float64(items[i].Count) * items[i].Price
	}
	answer, err := json.Marshal(items)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.Write(answer)
}
