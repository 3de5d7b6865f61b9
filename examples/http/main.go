// Command http serves HTTP on one pinned worker per CPU, and tells who answers.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	flag.Parse()

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		id, _ := pack.WorkerID()
		cpu, _ := pack.WorkerCPU()
		fmt.Fprintf(w, "hello from worker %d on CPU %d, process %d\n", id, cpu, os.Getpid())
	})
	if err := pack.ListenAndServeHTTP("tcp", *addr, &http.Server{Handler: mux}); err != nil {
		log.Fatal(err)
	}
}
