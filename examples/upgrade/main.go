//go:build !js

// Command upgrade is a server of one process, without a pack, that is replaced by the executable that is on disk now
// when it gets HUP: by a new process, or in the same process with -inplace.
//
//	go build -o server ./examples/upgrade && ./server &
//	go build -o server ./examples/upgrade && kill -HUP $(pidof -s server)
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/upgrade"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	config := &upgrade.Config{}
	flag.BoolVar(&config.InPlace, "inplace", false, "become the new program in the same process")
	flag.StringVar(&config.PIDFile, "pidfile", "", "file with the ID of the process that serves")
	flag.Parse()
	if err := run(*addr, config); err != nil {
		log.Fatal(err)
	}
}

func run(addr string, config *upgrade.Config) error {
	u, err := upgrade.New(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	l, err := u.Listen(ctx, "tcp", addr)
	if err != nil {
		return u.HandBack(err) // the predecessor goes on
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello from process", os.Getpid())
	})}
	go srv.Serve(l)

	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			if err := u.Upgrade(ctx); err != nil {
				log.Print(err)
			}
		}
	}()
	if err := u.Ready(); err != nil {
		return u.HandBack(err)
	}
	log.Printf("process %d is listening on %s", os.Getpid(), l.Addr())
	select {
	case <-u.Done():
	case <-ctx.Done():
		u.Close()
	}
	deadline, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := srv.Shutdown(deadline); err != nil {
		log.Print(err)
	}
	return u.Finish()
}
