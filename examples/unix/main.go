// Command unix serves HTTP on a Unix socket, from which all workers accept: curl --unix-socket PATH http://x/
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"

	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	path := flag.String("path", "gopherpack.sock", "path of the socket")
	flag.Parse()

	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := pack.WorkerID()
		fmt.Fprintln(w, "hello from worker", id)
	})}
	if err := pack.ListenAndServeHTTP("unix", *path, srv); err != nil {
		log.Fatal(err)
	}
}
