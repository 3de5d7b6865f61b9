// Command container is a pack as the only program of a container: process 1, with nothing beside it, not even a shell.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	addr := flag.String("addr", ":8080", "address to listen on")
	check := flag.Bool("check", false, "ask who listens on -addr, and exit with status 1 if it does not answer well")
	flag.Parse()
	if *check {
		if err := ask(*addr); err != nil {
			log.Fatal(err)
		}
		return
	}

	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		id, _ := pack.WorkerID()
		fmt.Fprintf(w, "hello from worker %d\n", id)
	})
	if err := pack.ListenAndServeHTTP("tcp", *addr, &http.Server{Handler: mux}); err != nil {
		log.Fatal(err)
	}
}

// ask is the health check: an image without a shell has no other program that could ask.
func ask(addr string) error {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + addr + "/healthz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("health check: " + resp.Status)
	}
	return nil
}
