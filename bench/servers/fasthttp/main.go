// Command fasthttp is fasthttp with its prefork: one child per CPU, not pinned, each with a socket of its own.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/prefork"

	"github.com/gopherpack/gopherpack/bench/internal/answers"
)

func main() {
	address := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	dir := flag.String("tls", "", "serve TLS with cert.pem and key.pem of this directory")
	flag.Parse()
	p := prefork.New(&fasthttp.Server{Handler: serve})
	p.Reuseport = true
	p.OnMasterDeath = func() { os.Exit(1) } // as Fiber sets it; without it the children go on for ever
	var err error
	if *dir != "" {
		err = p.ListenAndServeTLS(*address, filepath.Join(*dir, "key.pem"), filepath.Join(*dir, "cert.pem"))
	} else {
		err = p.ListenAndServe(*address)
	}
	if err != nil {
		log.Fatal("fasthttp: ", err)
	}
}

func serve(c *fasthttp.RequestCtx) {
	body, ok := answers.Body(string(c.Path()))
	if !ok {
		c.NotFound()
		return
	}
	c.SetContentType(answers.ContentType)
	c.SetBody(body)
}
