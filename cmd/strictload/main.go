// Command strictload loads an HTTP/1.1 server with clients that retry nothing, and counts every request that is not
// answered, by kind. Run it while the server is reloaded, upgraded or stopped:
//
//	strictload -clients 32 -keepalive -duration 10s http://localhost:8080/
//
// Its exit status is 1 if a request failed. Interrupt it to end it early.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

func main() {
	var l strictclient.Load
	flag.IntVar(&l.Clients, "clients", 16, "number of clients, each with one request under way at a time")
	flag.BoolVar(&l.KeepAlive, "keepalive", false, "keep the connection for the next request, unless the server closes it")
	flag.DurationVar(&l.Pause, "pause", 0, "pause between a client's requests, on average")
	flag.DurationVar(&l.Timeout, "timeout", 30*time.Second, "how long a request may take")
	duration := flag.Duration("duration", 10*time.Second, "how long to go on")
	body := flag.Int("body", 0, "length of a body, in bytes, which is posted; 0 for GET")
	socket := flag.String("unix", "", "path of a Unix socket to connect to")
	insecure := flag.Bool("insecure", false, "do not verify the server's certificate")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: strictload [flags] URL")
		flag.PrintDefaults()
	}
	flag.Parse()
	err := target(&l, flag.Arg(0), *socket, *insecure)
	if *body < 0 {
		err = fmt.Errorf("a body of %d bytes: want 0 or more", *body)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "strictload:", err)
		os.Exit(2)
	}
	l.Body = strings.Repeat("x", *body)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *duration)
	defer cancel()
	begun := time.Now()
	r := l.Run(ctx)
	report(r, time.Since(begun))
	if r.Failed() > 0 || r.Requests == 0 {
		os.Exit(1)
	}
}

// target sets where the load goes.
func target(l *strictclient.Load, text, socket string, insecure bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return err
	case flag.NArg() != 1 || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("want one URL, such as http://localhost:8080/, got %q", flag.Args())
	case l.Clients < 1:
		return fmt.Errorf("%d clients: there must be at least one", l.Clients)
	}
	l.Path = u.RequestURI()
	l.Network, l.Address = "tcp", u.Host
	if u.Port() == "" {
		l.Address = net.JoinHostPort(u.Hostname(), u.Scheme)
	}
	if u.Scheme == "https" {
		l.TLS = &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: insecure}
	}
	if socket != "" {
		l.Network, l.Address = "unix", socket
	}
	return nil
}

func report(r *strictclient.Result, took time.Duration) {
	fmt.Printf("%d requests answered in %v (%.0f/s), on %d connections, the longest took %v\n",
		r.Requests, took.Round(time.Millisecond), float64(r.Requests)/took.Seconds(), r.Conns,
		r.Longest.Round(time.Microsecond))
	fmt.Printf("%d failed\n", r.Failed())
	for _, kind := range slices.Sorted(maps.Keys(r.Failures)) {
		fmt.Printf("%8d  %s\n", r.Failures[kind], kind)
	}
}
