//go:build unix

package upgrade_test

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/upgrade"
)

// HUP replaces the server by the executable that is on disk now; TERM stops it.
func Example() {
	u, err := upgrade.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	l, err := u.Listen(ctx, "tcp", ":8080")
	if err != nil {
		log.Fatal(u.HandBack(err)) // the predecessor goes on
	}
	srv := &http.Server{}
	go srv.Serve(l)

	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			if err := u.Upgrade(ctx); err != nil {
				log.Print(err) // this process goes on
			}
		}
	}()
	if err := u.Ready(); err != nil { // the predecessor may go
		log.Fatal(err)
	}
	select {
	case <-u.Done():
	case <-ctx.Done():
		u.Close()
	}
	deadline, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	srv.Shutdown(deadline)
	if err := u.Finish(); err != nil { // in place, this becomes the new program
		log.Fatal(err)
	}
}
