//go:build unix

package upgrade_test

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/reuseport"
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
		log.Fatal(u.HandBack(err))
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

// A socket that systemd has opened is handed on as a file: a successor is not given it by systemd, and must not remove
// its file.
func ExampleUpgrader_AddFile() {
	u, err := upgrade.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) { // no successor has that variable
		f := os.NewFile(3, "web")
		if err := u.AddFile("web", f); err != nil {
			log.Fatal(err)
		}
		f.Close()
	}
	f, err := u.File("web")
	if f == nil || err != nil {
		log.Fatal("no socket: ", err)
	}
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		log.Fatal(u.HandBack(err))
	}
	go http.Serve(l, nil)
	if err := u.Ready(); err != nil {
		log.Fatal(u.HandBack(err))
	}
	<-u.Done()
}

// A group of sockets with SO_REUSEPORT stays one, in its order, with what waits in the queue of each.
func ExampleUpgrader_ListenFunc() {
	u, err := upgrade.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	open := new(reuseport.Config).Listen
	for range 4 {
		l, err := u.ListenFunc(ctx, "tcp", ":8080", open) // the second is the second, generation after generation
		if err != nil {
			log.Fatal(u.HandBack(err))
		}
		go http.Serve(l, nil)
	}
	if err := u.Ready(); err != nil {
		log.Fatal(u.HandBack(err))
	}
	<-u.Done()
}
